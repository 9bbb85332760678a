"""Optimizer and learning-rate schedule of a run, and a schedule that torch does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from mmrobust.errors import UserError


def warmup_steps(optimizer: Optimizer, *, warmup: int, milestones: Sequence[int], gamma: float) -> LambdaLR:
    """Rise linearly over `warmup` epochs, then multiply by `gamma` at every milestone (epochs, from 0).

    Epoch e of the warm-up trains with (e + 1) / warmup of the learning rate.
    """

    def factor(epoch: int) -> float:
        passed = sum(epoch >= milestone for milestone in milestones)
        return min(1.0, (epoch + 1) / max(warmup, 1)) * gamma**passed

    return LambdaLR(optimizer, factor)


def scale(optimizer: Optimizer, factors: Iterable[float], *rates: str) -> None:
    """Multiply each group's `rates` by its factor."""
    for group, factor in zip(optimizer.param_groups, factors, strict=True):
        for rate in rates:
            if factor != 1:
                group[rate] *= factor


def optimization(
    parameters: Mapping[float, Sequence[nn.Parameter]],
    optimizer: Callable[..., Optimizer],
    schedule: Callable[..., Any],
) -> dict[str, Any]:
    """Build the dictionary that Lightning expects from `configure_optimizers`.

    Args:
        parameters: learning-rate factor -> parameters that are trained with it.
        optimizer: parameters -> optimizer.
        schedule: optimizer -> learning-rate schedule, stepped every epoch.

    Raises:
        UserError: the optimizer or the schedule refuses its arguments.
    """
    key = "optimizer"
    try:
        groups = [{"params": list(group)} for group in parameters.values()]
        built = optimizer(groups)
        scale(built, parameters, "lr")
        key = "schedule"
        scheduler = schedule(built)
        if isinstance(scheduler, OneCycleLR):
            # OneCycleLR sets the same max_lr for all groups and ignores their own rates.
            scale(built, parameters, "lr", "initial_lr", "max_lr", "min_lr")
        return {"optimizer": built, "lr_scheduler": scheduler}
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UserError(f"{key}: {error}; see conf/{key}/ and the keys below {key}") from error
