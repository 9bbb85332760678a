"""What the ranks of a multi-device run must agree on."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor, nn


def active() -> bool:
    """Whether there are several ranks."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def total(x: Tensor) -> Tensor:
    """The sum over all ranks, in a new tensor without gradient: for every increment of a method's state."""
    x = x.detach().clone()
    if active():
        torch.distributed.all_reduce(x)
    return x


def mean_of(values: Tensor, counted: Tensor) -> Tensor:
    """Column means of (B, ...) over the rows of all ranks where `counted` (B, ...) is true; 0 where none is."""
    sums = total(torch.where(counted, values, 0).sum(0))
    return sums / total(counted.sum(0)).clamp(min=1)


def average_running_statistics(network: nn.Module) -> None:
    """Ranks normalise with their own batches; what is validated and saved is the mean of their statistics."""
    if not active():
        return
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for statistic in (module.running_mean, module.running_var):
                if statistic is not None:
                    statistic.copy_(total(statistic) / torch.distributed.get_world_size())
