"""Features as diagonal Gaussians."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrobust.models.encoders import PointwiseLinear
from mmrobust.models.heads import LinearHead, Prediction
from mmrobust.models.pyramid import Pyramid, deepest, with_deepest


class NormalisedLinear(nn.Module):
    """A linear map of the channels with BatchNorm behind it, over rows and places: (B, D) or (B, D, ...), same
    shape out. `maps` picks the class of the norm, whose numbers are the same."""

    def __init__(self, width: int, *, maps: bool = False) -> None:
        super().__init__()
        self.linear = PointwiseLinear(width, width)
        self.norm = nn.BatchNorm2d(width) if maps else nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        if x.dim() <= 3 or isinstance(self.norm, nn.BatchNorm2d):
            return self.norm(x)
        return self.norm(x.flatten(2)).unflatten(2, x.shape[2:])


def predict_from_mean(mean: NormalisedLinear, head: nn.Module, x: Tensor | Pyramid) -> Prediction:
    """`head(mean(x))` in eval mode, of a pyramid the mean of its deepest map. All of it is linear, so a linear head is
    folded into one small map: with six modalities, the wide one would cost more than half of what encoding does."""
    if not isinstance(head, LinearHead) or isinstance(x, Pyramid):
        return head(with_deepest(x, mean(deepest(x))))
    norm, linear = mean.norm, mean.linear
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = (head.weight * scale) @ linear.weight
    bias = head.weight @ ((linear.bias - norm.running_mean) * scale + norm.bias) + head.bias
    return Prediction(F.linear(x, weight, bias))


def sample_gaussian(mean: Tensor, log_variance: Tensor) -> Tensor:
    """One sample of N(mean, exp(log_variance)) by reparametrisation; the shape of `mean`."""
    return mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
