"""Callbacks for the progress of training: position and seconds, means of losses, lines on the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.training.terminal import say_of_job


class Position(Callback):
    """Counts the seconds of training, and writes position, steps, seconds and score into every checkpoint.

    Args:
        seconds: the seconds of training before an interruption; 0 for a new run.
        monitor: the logged name of the score that selects the checkpoint.
    """

    def __init__(self, seconds: float, monitor: str) -> None:
        self.before, self.started, self.monitor = seconds, time.perf_counter(), monitor

    def start(self) -> None:
        """Restart the clock just before training, because loggers may have waited for their server."""
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, with those before an interruption."""
        return self.before + time.perf_counter() - self.started

    def on_save_checkpoint(
        self, trainer: Trainer, method: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["seconds"] = self.seconds
        checkpoint["selection"] = self.score(trainer)
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress
        epoch, batches = trainer.current_epoch, progress.current.processed
        if batches >= trainer.num_training_batches:
            epoch, batches = epoch + 1, 0
        # From the loop, not from the sampler: workers prefetch beyond the current batch.
        checkpoint["position"] = (epoch, batches)
        # If this is saved within a batch's hooks, Lightning has not counted its step yet.
        within = progress.current.completed < progress.current.processed
        checkpoint["steps"] = step_of(trainer) + within

    def score(self, trainer: Trainer) -> dict[str, Any]:
        """The last validation score and its epoch, counted from 1; the value is None without a validation."""
        value = trainer.callback_metrics.get(self.monitor)
        score = None if value is None else float(value)
        return {"metric": self.monitor, "value": score, "epoch": trainer.current_epoch + 1}


def step_of(trainer: Trainer) -> int:
    """The step under which Lightning logs: the number of optimizer steps so far. It has no public name in Lightning."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def accumulating(trainer: Trainer, batch_idx: int) -> bool:
    """Whether the gradients of this batch accumulate, so that no optimizer step follows it."""
    last = batch_idx + 1 == trainer.num_training_batches
    return not last and (batch_idx + 1) % trainer.accumulate_grad_batches != 0


def is_logged(trainer: Trainer, batch_idx: int) -> bool:
    """Whether this batch ends a step that is logged according to `trainer.log_every_n_steps`."""
    every: int = cast(Any, trainer).log_every_n_steps
    return bool(every) and (step_of(trainer) + 1) % every == 0 and not accumulating(trainer, batch_idx)


def log_values(trainer: Trainer, values: Mapping[str, float], step: int) -> None:
    """Send values to all loggers, together with the epoch, as Lightning does."""
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": trainer.current_epoch}, step)


class Losses(Callback):
    """Logs `train/loss` every few steps, and `train/loss/<term>` as means over the epoch.

    Lightning's own means lose the batches before an interruption, and Lightning logs a step only after the hooks that
    may write a checkpoint. These means are part of the checkpoint, and reach the log file before it is written.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.samples = 0

    def on_train_batch_end(
        self, trainer: Trainer, method: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        terms = cast(dict[str, Tensor], method.last_terms)
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(term)) + len(batch) * term
        self.samples += len(batch)
        total = torch.stack(list(terms.values())).sum()
        method.log("train/loss", total, prog_bar=True, logger=False)
        if is_logged(trainer, batch_idx):
            log_values(trainer, {"train/loss": total.item()}, step_of(trainer))

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        means = {}
        for name, total in self.sums.items():
            mean = trainer.strategy.reduce(total / self.samples, reduce_op="mean")
            means[f"train/loss/{name}"] = float(mean)
        self.sums, self.samples = {}, 0
        log_values(trainer, means, step_of(trainer) - 1)
        for logger in trainer.loggers:
            logger.save()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "samples": self.samples}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sums, self.samples = state_dict["sums"], state_dict["samples"]

    def on_train_start(self, trainer: Trainer, method: LightningModule) -> None:
        self.sums = {name: total.to(method.device) for name, total in self.sums.items()}


class Bar(TQDMProgressBar):
    """Lightning's progress bar, closed on an error, so that the message gets a line of its own."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        for bar in (self._val_progress_bar, self._train_progress_bar, self._test_progress_bar):
            if bar is not None:
                bar.close()


class EpochLines(Callback):
    """Prints progress where no bar can be drawn: a line after each validation, after each epoch without a validation,
    and every SECONDS within an epoch."""

    SECONDS = 60

    def __init__(self) -> None:
        self.reported, self.last_line = 0, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, method: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if time.monotonic() - self.last_line > self.SECONDS:
            self.say(trainer, f"  batch {batch_idx + 1}/{trainer.num_training_batches}")

    def on_validation_end(self, trainer: Trainer, method: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self.reported = trainer.current_epoch + 1
            self.say(trainer)

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        if self.reported <= trainer.current_epoch:
            self.say(trainer)

    def say(self, trainer: Trainer, where: str = "") -> None:
        self.last_line = time.monotonic()
        if trainer.is_global_zero:
            known = trainer.callback_metrics
            shown = "".join(
                f"  {key} {float(known[key]):.3f}" for key in ("train/loss", "val") if key in known
            )
            of = f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
            say_of_job(f"epoch {trainer.current_epoch + 1}{of}{where}{shown}")
