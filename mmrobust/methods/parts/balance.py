"""What methods that balance the modalities' learning share: comparing modalities, scaling gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mmrobust import ranks


def mean_over_rows(values: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
    """Every modality's mean over the rows of all ranks that have it.

    Args:
        values: (B, M); anything finite where a modality is not available.
        available: (B, M) bool.

    Returns:
        The means (M,), 0 where no row has the modality; and which modalities some row has, (M,) bool.
    """
    return ranks.mean_of(values, available), ranks.total(available.sum(0)) > 0


def mean_of_others(values: Tensor, seen: Tensor) -> Tensor:
    """For every modality the mean of `values` (M,) over the other `seen` (M,) ones: what it is compared with.

    A modality that was not seen, or alone was seen, is compared with itself: it is in balance.
    """
    others = seen & ~torch.eye(len(values), dtype=torch.bool, device=values.device)  # (M, M)
    means = torch.where(others, values, 0).sum(1) / others.sum(1).clamp(min=1)
    return torch.where(seen & others.any(1), means, values)


def gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients there are, to be changed in place."""
    return [p.grad for p in parameters if p.grad is not None]
