"""How weights are optimised: an optimizer with its schedule, and schedules that torch does not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mmrobust.errors import UserError


def warmup_steps(optimizer: Optimizer, *, warmup: int, milestones: Sequence[int], gamma: float) -> LambdaLR:
    """Rise linearly over `warmup` epochs, then multiply by `gamma` at every milestone (epochs, from 0).

    Epoch e of the warm-up trains with (e + 1) / warmup of the learning rate.
    """

    def factor(epoch: int) -> float:
        passed = sum(epoch >= milestone for milestone in milestones)
        return min(1.0, (epoch + 1) / max(warmup, 1)) * gamma**passed

    return LambdaLR(optimizer, factor)


def optimization(
    parameters: Sequence[nn.Parameter], optimizer: Callable[..., Optimizer], schedule: Callable[..., Any]
) -> dict[str, Any]:
    """What Lightning asks of `configure_optimizers`.

    Args:
        optimizer: parameters -> optimizer.
        schedule: optimizer -> learning-rate schedule, stepped every epoch.

    Raises:
        UserError: numbers that cannot be.
    """
    key = "optimizer"
    try:
        built = optimizer(parameters)
        key = "schedule"
        return {"optimizer": built, "lr_scheduler": schedule(built)}
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UserError(f"{key}: {error}; see conf/{key}/ and the keys below {key}") from error
