"""Learning-rate schedules that torch does not have, stepped every epoch."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_steps(optimizer: Optimizer, *, warmup: int, milestones: Sequence[int], gamma: float) -> LambdaLR:
    """Rise linearly over `warmup` epochs, then multiply by `gamma` at every milestone (epochs, from 0).

    Epoch e of the warm-up trains with (e + 1) / warmup of the learning rate.
    """

    def factor(epoch: int) -> float:
        passed = sum(epoch >= milestone for milestone in milestones)
        return min(1.0, (epoch + 1) / max(warmup, 1)) * gamma**passed

    return LambdaLR(optimizer, factor)
