"""Sums and means over the ranks of a multi-device run."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor, nn


def active() -> bool:
    """Whether torch.distributed is initialised: the run has several ranks."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def total(x: Tensor) -> Tensor:
    """The sum of `x` over all ranks, as a new tensor without gradient. Every increment of a method's state goes through
    this, so that buffers agree over ranks."""
    x = x.detach().clone()
    if active():
        torch.distributed.all_reduce(x)
    return x


def mean_of(values: Tensor, counted: Tensor) -> Tensor:
    """Column means of (B, ...) over the rows of all ranks where `counted` (B, ...) is true; 0 where none is."""
    sums = total(torch.where(counted, values, 0).sum(0))
    return sums / total(counted.sum(0)).clamp(min=1)


def average_running_statistics(network: nn.Module) -> None:
    """Set the running statistics of batch norm to their mean over ranks, before validation and before a checkpoint.

    In training, each rank normalises with the statistics of its own batches.
    """
    if not active():
        return
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for statistic in (module.running_mean, module.running_var):
                if statistic is not None:
                    statistic.copy_(total(statistic) / torch.distributed.get_world_size())
