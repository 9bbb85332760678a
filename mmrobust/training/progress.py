"""Where training is: seconds and position, means of losses, a line for every epoch."""

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
    """Where training is: its seconds, those before an interruption included, its epoch and batches.

    Args:
        seconds: of the training so far.
        monitor: the score that selects the checkpoint, as logged; every checkpoint says what it is of it.
    """

    def __init__(self, seconds: float, monitor: str) -> None:
        self.before, self.started, self.monitor = seconds, time.perf_counter(), monitor

    def start(self) -> None:
        """Count from now: loggers may have waited for their server."""
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
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
        checkpoint["position"] = (epoch, batches)  # asked of the loop: workers read ahead of it
        within = (
            progress.current.completed < progress.current.processed
        )  # Lightning has not counted this batch yet
        checkpoint["steps"] = step_of(trainer) + within

    def score(self, trainer: Trainer) -> dict[str, Any]:
        """The last validation score, of the epoch counted from 1; null if nothing was validated."""
        value = trainer.callback_metrics.get(self.monitor)
        score = None if value is None else float(value)
        return {"metric": self.monitor, "value": score, "epoch": trainer.current_epoch + 1}


def step_of(trainer: Trainer) -> int:
    """The step under which Lightning logs: batches so far, or windows of accumulated ones."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def accumulating(trainer: Trainer, batch_idx: int) -> bool:
    """Whether this batch's gradients still wait for others."""
    last = batch_idx + 1 == trainer.num_training_batches
    return not last and (batch_idx + 1) % trainer.accumulate_grad_batches != 0


def is_logged(trainer: Trainer, batch_idx: int) -> bool:
    """Whether this batch's step is one of those that `trainer.log_every_n_steps` has logged."""
    every: int = cast(Any, trainer).log_every_n_steps
    return bool(every) and (step_of(trainer) + 1) % every == 0 and not accumulating(trainer, batch_idx)


def log_values(trainer: Trainer, values: Mapping[str, float], step: int) -> None:
    """To all loggers, with the epoch, as Lightning does."""
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": trainer.current_epoch}, step)


class Losses(Callback):
    """Logs `train/loss` every few steps, and `train/loss/<term>` as means over the epoch.

    Lightning's own means forget what came before an interruption, and it logs a step only after the hooks in
    which a checkpoint may be written; these are part of the checkpoint and in the file before it.
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
    """Lightning's, which leaves its line when training ends in an error."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        for bar in (self._val_progress_bar, self._train_progress_bar, self._test_progress_bar):
            if bar is not None:
                bar.close()


class EpochLines(Callback):
    """Progress where there is no bar: a line for every validation, every epoch without one, and now and then within
    a long epoch."""

    SECONDS = 60  # between lines within an epoch

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
