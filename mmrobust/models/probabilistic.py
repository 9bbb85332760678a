"""Features as diagonal Gaussians."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmrobust.models.encoders import PointwiseLinear


class NormalisedLinear(nn.Module):
    """A linear map of the channels with BatchNorm behind it: (B, D) or (B, D, H, W), same shape out."""

    def __init__(self, width: int, *, maps: bool) -> None:
        super().__init__()
        self.linear = PointwiseLinear(width, width)
        self.norm = nn.BatchNorm2d(width) if maps else nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


def sample_gaussian(mean: Tensor, log_variance: Tensor) -> Tensor:
    """One sample of N(mean, exp(log_variance)) by reparametrisation; the shape of `mean`."""
    return mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
