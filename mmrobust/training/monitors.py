"""Callbacks of the configuration: they log further values, and end training early."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor
from torch.optim import Optimizer

from mmrobust.batch import Batch
from mmrobust.combinations import combination_name, sample_combinations
from mmrobust.config.groups import nearest
from mmrobust.data.loading import KeyedSampler
from mmrobust.errors import UserError, one_of
from mmrobust.methods.base import Method
from mmrobust.tasks.metric import direction
from mmrobust.training.devices import place
from mmrobust.training.progress import is_logged, log_values, step_of
from mmrobust.training.terminal import step

log = logging.getLogger("mmrobust")

WATCHING = (callbacks.EarlyStopping, callbacks.ModelCheckpoint)
AGGREGATES = ("average", "worst", "full", "available")


class Monitor(Callback):
    """Measures values just before an optimizer's step, and logs them.

    It does so every `trainer.log_every_n_steps` and at the end of an epoch. If a batch takes several optimizer steps, the
    last one counts.
    """

    def __init__(self) -> None:
        self.values: dict[str, float | Tensor] = {}

    def measure(self, trainer: Trainer, method: LightningModule, optimizer: Optimizer) -> dict[str, Any]:
        """Logged name -> value."""
        raise NotImplementedError

    def on_before_optimizer_step(
        self, trainer: Trainer, method: LightningModule, optimizer: Optimizer
    ) -> None:
        progress: Any = trainer.fit_loop.epoch_loop
        if is_logged(trainer, progress.batch_idx) or progress.batch_idx + 1 == trainer.num_training_batches:
            self.values = self.measure(trainer, method, optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, method: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self.values:
            log_values(trainer, {k: float(v) for k, v in self.values.items()}, step_of(trainer))
            self.values = {}


class LearningRate(Monitor):
    """`train/lr`: the learning rate of the step; `train/lr/<number>` for further groups of parameters."""

    def measure(self, trainer: Trainer, method: LightningModule, optimizer: Optimizer) -> dict[str, Any]:
        rates = [group["lr"] for group in optimizer.param_groups]
        return {"train/lr": rates[0]} | {f"train/lr/{i}": rate for i, rate in enumerate(rates[1:], start=1)}


class GradientNorm(Monitor):
    """`train/gradient_norm`: the Euclidean norm of all gradients, before the method changes them and before
    clipping."""

    def measure(self, trainer: Trainer, method: LightningModule, optimizer: Optimizer) -> dict[str, Any]:
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        norms = [torch.linalg.vector_norm(gradient).float() for gradient in gradients]
        if not norms:
            return {}
        squares = torch.stack(norms).square().sum()
        # With FSDP, each rank holds a shard of the gradients.
        if isinstance(trainer.strategy, FSDPStrategy):
            squares = trainer.strategy.reduce(squares, reduce_op="sum")
        return {"train/gradient_norm": squares.sqrt()}


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's EarlyStopping; by default it monitors the score that selects the checkpoint.

    Args:
        monitor: the logged name of the score; None: the score that selects the checkpoint.
        mode: min or max, the direction that is better; None: the metric's direction.
        patience: the number of validations without an improvement after which training ends.
        min_delta: the smallest change that counts as an improvement.

    Raises:
        UserError: the mode is unknown.
    """

    def __init__(self, *, monitor: str | None, mode: str | None, patience: int, min_delta: float) -> None:
        if mode is not None:
            one_of("callbacks.early_stopping.mode", mode, ("min", "max"))
        self.given_monitor, self.given_mode = monitor, mode
        self.keys: dict[str, Any] = {"patience": patience, "min_delta": min_delta}
        super().__init__(monitor=monitor or "val", mode=mode or "max", **self.keys)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            metric = cast(Method, pl_module).task.primary
            monitor = self.given_monitor or f"val/average/{metric}"
            named = "loss" if "loss" in monitor else monitor.rpartition("/")[2]
            mode = self.given_mode or ("min" if named == "loss" else direction(named))
            super().__init__(monitor=monitor, mode=mode, **self.keys)
        super().setup(trainer, pl_module, stage)


class SameBatches(Callback):
    """Repeats the first epoch: each epoch has the same order and the same augmentation, hence the same samples with
    `trainer.limit_train_batches`."""

    def on_train_epoch_start(self, trainer: Trainer, method: LightningModule) -> None:
        sampler = cast(Any, trainer.train_dataloader).sampler
        cast(KeyedSampler, sampler).set_epoch(0)


class Shortness(Callback):
    """Warns if training ends too early: before the end of a schedule over `trainer.max_epochs`, or before the last phase
    of the method begins."""

    def __init__(self) -> None:
        self.warned = False

    def on_train_start(self, trainer: Trainer, method: LightningModule) -> None:
        method = cast(Method, method)
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        if trainer.max_steps > 0 and method.automatic_optimization:
            steps = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
            by_steps = -(-trainer.max_steps // steps)
            if epochs is not None and by_steps < epochs:
                tell(
                    f"trainer.max_steps={trainer.max_steps} ends training in epoch {by_steps} of trainer.max_epochs={epochs}: "
                    f"schedules and whatever else lasts that long are cut off; set trainer.max_epochs={by_steps} to have them end "
                    "with it"
                )
            epochs = by_steps if epochs is None else min(epochs, by_steps)
        if epochs is not None:
            self.tell_unreached(epochs, method)

    def on_train_end(self, trainer: Trainer, method: LightningModule) -> None:
        self.tell_unreached(trainer.current_epoch, cast(Method, method))

    def tell_unreached(self, epochs: int, method: Method) -> None:
        if epochs <= method.selectable_from and not self.warned:
            self.warned = True
            tell(
                f"training ends after epoch {epochs}, and only from epoch {method.selectable_from + 1} on does {type(method).__name__} "
                "do all that it does: raise trainer.max_epochs, or shorten its phases, see the keys of its file in conf/method/"
            )


def tell(text: str) -> None:
    """Write a warning to the log and, for a single run, to the terminal."""
    if place().rank == 0:
        log.warning(text)
        step(f"warning: {text}")


def check_monitors(watching: Sequence[Callback], method: Method, validates: bool) -> None:
    """Check that the scores which callbacks monitor can be logged. The metric's name is checked after the first
    validation, when it is known (see `unknown_score`).

    Raises:
        UserError: a callback monitors a validation score, but nothing is validated; or no such score exists.
    """
    names = [combination_name(c) for c in sample_combinations(method.modalities, method.evaluates)]
    for callback in watching:
        monitor = callback.monitor if isinstance(callback, WATCHING) else None
        if monitor is None or monitor in ("val", "train/loss"):
            continue
        kind, _, rest = monitor.partition("/")
        if kind == "val" and rest.rpartition("/")[0] in (*names, *AGGREGATES):
            if validates:
                continue
            raise UserError(
                f"{type(callback).__name__} watches {monitor}, but nothing is validated; keep a share of the data for "
                "it (data.validation), or watch train/loss"
            )
        raise UserError(
            f"{type(callback).__name__} watches {monitor}, which is not logged; watch train/loss, val, or "
            f"val/<combination>/<metric>, where a combination is {', '.join((*AGGREGATES, *names[:4]))}"
            + (", ..." if len(names) > 4 else "")
        )


def unknown_score(watching: Sequence[Callback], trainer: Trainer) -> UserError | None:
    """The error to raise if training ended because a callback monitors a score that was not logged, else None."""
    known = list(trainer.callback_metrics)
    for callback in watching:
        monitor = callback.monitor if isinstance(callback, WATCHING) else None
        if monitor is not None and known and monitor not in known:
            name = type(callback).__name__
            return UserError(f"{name} watches {monitor}, which is not logged{nearest(monitor, known)}")
    return None


def early_stops(watching: Sequence[Callback], epochs: int) -> Iterator[str]:
    """A line for each callback that ended training early, with its reason.

    Args:
        watching: the callbacks.
        epochs: `trainer.max_epochs`; -1 if there is no limit.
    """
    for callback in watching:
        if not isinstance(callback, callbacks.EarlyStopping) or callback.stopping_reason_message is None:
            continue
        of = f" of {epochs}" if epochs > 0 else ""
        why = callback.stopping_reason_message.removesuffix(" Signaling Trainer to stop.")
        if callback.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED:
            why = (
                f"{callback.monitor} has not improved for {callback.wait_count} validations (best "
                f"{float(callback.best_score):.4f})"
            )
        yield f"stopped early, after epoch {callback.stopped_epoch + 1}{of}: {why}"
