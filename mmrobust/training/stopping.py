"""Callbacks that end training early: on a signal, and on a loss that is not finite."""

from __future__ import annotations

import signal
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from mmrobust import ranks
from mmrobust.batch import Batch
from mmrobust.config.trust import resume_command
from mmrobust.errors import DivergenceError, Stopped
from mmrobust.training.children import stop_signals
from mmrobust.training.devices import in_slurm, place
from mmrobust.training.progress import accumulating
from mmrobust.training.terminal import say

# Batches between two looks at a value on the GPU or on other ranks, because each look synchronises them.
LOOK_EVERY = 10


class StopOnSignal(Callback):
    """Finish the batch, save `last.ckpt` and stop, on SIGTERM, Ctrl-C, SIGHUP, or Slurm's warning of a time limit.

    Training stops only where nothing is pending: not while gradients accumulate, and not just before a validation or
    the end of an epoch, whose results would be lost. This must be the last callback, so that all others have seen the
    batch.

    Raises:
        Stopped: the checkpoint is written; the exit status is the one that shells expect (143, 130 or 129).
    """

    SLURM = (signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, method: LightningModule) -> None:
        # Not earlier: Lightning sets its own handlers before this hook, and they end the process without a word.
        for number in (*stop_signals(), *(self.SLURM if in_slurm() else ())):
            self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # A second signal stops at once. SIGHUP and Slurm's signals do not: they are sent repeatedly.
        if self.received is not None:
            if number == signal.SIGHUP or (in_slurm() and number != signal.SIGINT):
                return
            raise KeyboardInterrupt
        self.received = number
        if place().rank == 0:
            say("stopping after this batch; once more stops at once", error=True)

    def _asked(self, trainer: Trainer) -> bool:
        """Whether any rank has received a signal; all ranks get the same answer."""
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)

    def _stop(self) -> None:
        number = self.received or signal.SIGTERM
        raise Stopped(number, f"saved; go on with: {resume_command(self.folder)}")

    def on_train_epoch_start(self, trainer: Trainer, method: LightningModule) -> None:
        # The checkpoint of the last epoch's end is already written.
        if self._asked(trainer):
            self._stop()

    def on_train_batch_end(
        self, trainer: Trainer, method: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        pending = done == trainer.num_training_batches or done % cast(Any, trainer).val_check_batch == 0
        if pending or accumulating(trainer, batch_idx):
            return
        # Asking the other ranks makes all of them wait.
        if trainer.world_size > 1 and done % LOOK_EVERY:
            return
        if self._asked(trainer):
            for logger in trainer.loggers:
                logger.save()
            # Averaging now changes no result: it commutes with the updates that follow.
            ranks.average_running_statistics(method)
            trainer.save_checkpoint(self.folder / "checkpoints" / "last.ckpt")
            self._stop()

    def on_train_end(self, trainer: Trainer, method: LightningModule) -> None:
        self._restore()
        if self._asked(trainer):
            self._stop()

    def on_exception(self, trainer: Trainer, method: LightningModule, exception: BaseException) -> None:
        self._restore()
        if self.received is not None and not isinstance(exception, Stopped | KeyboardInterrupt):
            # Raised as Stopped, because a sweep would count any other error as a failed run and start the next one.
            line = f"not saved ({exception}); go on from the checkpoint before with: {resume_command(self.folder)}"
            raise Stopped(self.received, line) from exception

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class StopOnBadLoss(Callback):
    """End training when a loss is NaN or infinite; the error names step, samples and the last good checkpoint.

    On a GPU the losses are read every few steps only, because reading one synchronises the device.
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
        # Before this epoch's checkpoint is written, so that no checkpoint follows a bad loss.
        self.look()

    def look(self) -> None:
        """Check the losses of all steps since the last call.

        Raises:
            DivergenceError: one of them is not finite.
        """
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
