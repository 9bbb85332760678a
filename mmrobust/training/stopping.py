"""What watches over training: signals, losses that are no numbers, progress without a terminal."""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from mmrobust import ranks
from mmrobust.batch import Batch
from mmrobust.errors import DivergenceError, Stopped
from mmrobust.training.devices import in_slurm

LOOK_EVERY = 10  # batches after which a GPU, or other ranks, are asked


class Position(Callback):
    """Where training is: its seconds, those before an interruption included, its epoch and batches.

    Args:
        seconds: of the training so far.
        monitor: the score that selects the checkpoint, as logged; every checkpoint says what it is of it.
    """

    def __init__(self, seconds: float, monitor: str) -> None:
        self.before, self.started, self.monitor = seconds, time.perf_counter(), monitor

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
        if (step_of(trainer) + 1) % cast(Any, trainer).log_every_n_steps == 0 and not accumulating(
            trainer, batch_idx
        ):
            for logger in trainer.loggers:
                logger.log_metrics({"train/loss": total.item()}, step_of(trainer))

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        means = {}
        for name, total in self.sums.items():
            mean = trainer.strategy.reduce(total / self.samples, reduce_op="mean")
            means[f"train/loss/{name}"] = float(mean)
        self.sums, self.samples = {}, 0
        for logger in trainer.loggers:
            logger.log_metrics(means, step_of(trainer) - 1)
            logger.save()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "samples": self.samples}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sums, self.samples = state_dict["sums"], state_dict["samples"]

    def on_train_start(self, trainer: Trainer, method: LightningModule) -> None:
        self.sums = {name: total.to(method.device) for name, total in self.sums.items()}


class StopOnSignal(Callback):
    """SIGTERM and Ctrl-C, and the signals by which Slurm announces a time limit: finish the batch, save `last.ckpt`,
    stop.

    Only where nothing is pending: not while gradients wait for others, nor just before a validation or the end of
    an epoch, whose results would be lost. Must be the last callback, so that all others have seen the batch.

    Raises:
        Stopped: after the checkpoint is written, with the status that shells expect (143 or 130).
    """

    SLURM = (signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, method: LightningModule) -> None:
        # Not earlier: Lightning sets its own handlers before this, which would end the process without a word.
        for number in (signal.SIGTERM, signal.SIGINT, *(self.SLURM if in_slurm() else ())):
            self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:  # asked twice: at once, unless by Slurm, which repeats itself
            if in_slurm() and number != signal.SIGINT:
                return
            raise KeyboardInterrupt
        self.received = number
        print("stopping after this batch; once more stops at once", file=sys.stderr, flush=True)

    def _asked(self, trainer: Trainer) -> bool:
        """Whether any rank was asked to stop; the same answer on all."""
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)

    def _stop(self) -> None:
        number = self.received or signal.SIGTERM
        raise Stopped(number, f"saved; go on with: python -m mmrobust.run resume={self.folder}")

    def on_train_epoch_start(self, trainer: Trainer, method: LightningModule) -> None:
        if self._asked(trainer):  # the end of the last epoch was saved
            self._stop()

    def on_train_batch_end(
        self, trainer: Trainer, method: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        pending = done == trainer.num_training_batches or done % cast(Any, trainer).val_check_batch == 0
        if pending or accumulating(trainer, batch_idx):
            return
        if trainer.world_size > 1 and done % LOOK_EVERY:  # asking the others makes them wait
            return
        if self._asked(trainer):
            for logger in trainer.loggers:
                logger.save()
            ranks.average_running_statistics(method)  # which commutes with what is yet to come
            trainer.save_checkpoint(self.folder / "checkpoints" / "last.ckpt")
            self._stop()

    def on_train_end(self, trainer: Trainer, method: LightningModule) -> None:
        self._restore()
        if self._asked(trainer):
            self._stop()

    def on_exception(self, trainer: Trainer, method: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class Checkpoint(ModelCheckpoint):
    """Lightning's, which also remembers what was best when the run's folder has moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        folder = Path(str(self.dirpath))

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        moved = {
            key: here(state_dict[key])
            for key in ("best_model_path", "last_model_path", "kth_best_model_path")
        }
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | moved | {"best_k_models": best, "dirpath": self.dirpath})


class StopOnBadLoss(Callback):
    """A loss that is NaN or infinite ends training, with step, samples and the last good checkpoint named.

    On a GPU the loss is looked at every few steps only, since asking for it makes the device wait.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: deque[tuple[int, list[str], dict[str, Tensor]]] = deque()

    def on_train_batch_end(
        self, trainer: Trainer, method: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        terms = cast(dict[str, Tensor], method.last_terms)
        self.seen.append((trainer.fit_loop.total_batch_idx, batch.ids, terms))
        if method.device.type == "cpu" or len(self.seen) >= LOOK_EVERY:
            self.look()

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        self.look()  # before this epoch's checkpoint is written

    def look(self) -> None:
        """Raises: DivergenceError: one of the losses since the last look is not finite."""
        while self.seen:
            step, ids, terms = self.seen.popleft()
            if not torch.stack(list(terms.values())).isfinite().all():
                bad = ", ".join(
                    f"{name} = {term.item()}" for name, term in terms.items() if not term.isfinite()
                )
                last = self.folder / "checkpoints" / "last.ckpt"
                good = (
                    f"the last good checkpoint is {last}" if last.is_file() else "no checkpoint was saved yet"
                )
                raise DivergenceError(
                    f"the loss is no number at step {step}: {bad}. The samples were {', '.join(ids[:8])}"
                    f"{', ...' if len(ids) > 8 else ''}; {good}. Lower optimizer.lr, set trainer.gradient_clip_val, or "
                    "look at these samples"
                )


class EpochLines(Callback):
    """Progress where there is no terminal: a line for every epoch."""

    def on_validation_end(self, trainer: Trainer, method: LightningModule) -> None:
        if trainer.is_global_zero and trainer.state.fn == "fit":
            shown = {k: float(v) for k, v in trainer.callback_metrics.items() if k in ("train/loss", "val")}
            values = "  ".join(f"{k} {v:.3f}" for k, v in shown.items())
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {values}", flush=True)
