"""What a set of modalities has in common, whatever its size: mean and variance."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmrobust.models.encoders import PointwiseLinear
from mmrobust.models.fusion import check_places, masked


def mean_and_variance(
    features: Mapping[str, Tensor], available: Tensor, *, over_absent: bool
) -> tuple[Tensor, Tensor]:
    """Mean and variance over the available modalities, element by element.

    Args:
        features: modality -> (B, D, ...), of one shape.
        available: (B, M) bool.
        over_absent: the variance also adds up the squared mean once for every absent modality, as if its
            feature were 0, and still divides by the number of available ones.

    Returns:
        Two tensors (B, D, ...). The variance divides by the number of available modalities and is 0 where
        only one is, `over_absent` or not. A row without any has zeros.
    """
    present = torch.stack(masked(features, available), 1)  # (B, M, D, ...)
    which = available.reshape(*available.shape, *[1] * (present.dim() - 2))
    count = which.sum(1).clamp(min=1)
    mean = present.sum(1) / count
    squares = (present - mean[:, None]).square()
    if not over_absent:
        squares = torch.where(which, squares, 0)
    return mean, torch.where(count > 1, squares.sum(1) / count, 0)


class Moments(nn.Module):
    """Mean and variance over the available modalities of their features, projected to a common width.

    Args:
        widths: of the modalities' features.
        width: of the projections; the result is twice as wide, [mean, variance].
        over_absent: see `mean_and_variance`.
    """

    def __init__(self, widths: Mapping[str, int], *, width: int, over_absent: bool) -> None:
        super().__init__()
        self.width, self.over_absent = 2 * width, over_absent
        self.projections = nn.ModuleList([PointwiseLinear(w, width) for w in widths.values()])

    def forward(self, features: Mapping[str, Tensor], available: Tensor) -> Tensor:
        """Features (B, D_m, ...) of the modalities `available` (B, M) to (B, 2 * width, ...)."""
        check_places(features)
        projected = {m: f(x) for f, (m, x) in zip(self.projections, features.items(), strict=True)}
        return torch.cat(mean_and_variance(projected, available, over_absent=self.over_absent), 1)
