"""Features at several resolutions, and how those of several modalities become one.

Everything here is row-wise in eval mode, and an absent modality's features change neither the result nor any gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrobust.models.encoders import PointwiseLinear, normalization
from mmrobust.models.fusion import check_places, masked

MAX_CONTEXT = 512  # channels that a context module has if nobody says how many


class Pyramid(NamedTuple):
    """Maps of one input, or of a combination: the coarsest, and finer ones that a decoder adds on its way up."""

    deep: Tensor  # (B, D, h, w)
    skips: tuple[Tensor, ...]  # (B, D_l, H_l, W_l), coarse to fine


def deepest(features: Tensor | Pyramid) -> Tensor:
    """What a method may transform: the feature, of a pyramid the coarsest map."""
    return features.deep if isinstance(features, Pyramid) else features


def with_deepest(features: Any, deep: Tensor) -> Any:
    """The same with another deepest map; the skips stay."""
    return features._replace(deep=deep) if isinstance(features, Pyramid) else deep


def levels(features: Tensor | Pyramid) -> list[Tensor]:
    """All maps, coarse to fine."""
    return [features.deep, *features.skips] if isinstance(features, Pyramid) else [features]


def by_level(function: Callable[[dict[str, Tensor]], Tensor], features: Mapping[str, Any]) -> Any:
    """What the function makes of the modalities' features; of pyramids, level by level."""
    every = {m: levels(x) for m, x in features.items()}
    count = len(next(iter(every.values())))
    deep, *skips = [function({m: maps[i] for m, maps in every.items()}) for i in range(count)]
    return Pyramid(deep, tuple(skips)) if isinstance(next(iter(features.values())), Pyramid) else deep


class ConvNormReLU(nn.Sequential):
    """A convolution that keeps the size, without bias, with a norm and a ReLU behind it."""

    def __init__(self, inputs: int, width: int, kernel: int, norm: str) -> None:
        convolution = nn.Conv2d(inputs, width, kernel, padding=kernel // 2, bias=False)
        super().__init__(convolution, normalization(norm, width, 2), nn.ReLU(inplace=True))


class SqueezeExcitation(nn.Module):
    """Channels scaled by gates in (0, 1) that see the mean over all places; a zero map stays zero.

    Source: Hu et al., CVPR 2018, arXiv 1709.01507, reduction 16.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(width // 16, 1)
        self.gates = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gates(x.mean((2, 3)))[:, :, None, None]


class GatedSum(nn.Module):
    """Sum over the available modalities of their maps, each behind a squeeze-and-excitation gate of its own.

    Source: the fusion of ESANet (Seichter et al., ICRA 2021, arXiv 2011.06961) for two modalities; MMANet's released
    code hides absent ones by zeros, which the gates leave zero.

    Args:
        count: number of modalities.
        width: of their maps.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(SqueezeExcitation(width) for _ in range(count))

    def forward(self, features: Mapping[str, Tensor], available: Tensor) -> Tensor:
        """Maps (B, D, H, W) of the modalities `available` (B, M) to one (B, D, H, W)."""
        check_places(features)
        gated = (gate(x) for gate, x in zip(self.gates, masked(features, available), strict=True))
        return functools.reduce(torch.add, gated)


class Skips(nn.Module):
    """The finer levels of all modalities fused by gated sums, beside a deepest map that others fuse.

    Args:
        count: number of modalities.
        widths: of the skips, coarse to fine, the same for all modalities.
    """

    def __init__(self, count: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(GatedSum(count, width) for width in widths)

    def forward(self, deep: Tensor, features: Mapping[str, Pyramid], available: Tensor) -> Pyramid:
        """The fused deepest map, every modality's pyramid, what is available (B, M): the fused pyramid."""
        fused = [
            fuse({m: pyramid.skips[i] for m, pyramid in features.items()}, available)
            for i, fuse in enumerate(self.levels)
        ]
        return Pyramid(deep, tuple(fused))


class NoSkips(nn.Module):
    """Stands for `Skips` where features have one resolution: the fused feature as it is."""

    def forward(self, deep: Tensor, features: Mapping[str, Any], available: Tensor) -> Tensor:
        return deep


class Levelwise(nn.Module):
    """A fusion of single maps for pyramids: it fuses the deepest level, gated sums the others."""

    def __init__(self, fusion: nn.Module, skips: nn.Module) -> None:
        super().__init__()
        self.fusion, self.skips = fusion, skips
        self.width = cast(int, fusion.width)

    def forward(self, features: Mapping[str, Pyramid], available: Tensor) -> Pyramid:
        deep = self.fusion({m: pyramid.deep for m, pyramid in features.items()}, available)
        return self.skips(deep, features, available)


class Context(nn.Module):
    """Pyramid pooling (Zhao et al., CVPR 2017, arXiv 1612.01105): what lies around, at several scales.

    The map is averaged to n x n places for every n in `bins`, each result is reduced, enlarged to the map's size
    and put beside it; a 1x1 convolution makes `width` channels of all.

    Args:
        inputs: channels of the map.
        bins: released with ESANet: 1 and 5.
        width: of the result; null: that of the map, but at most MAX_CONTEXT.
        norm: batch | group.
    """

    def __init__(self, inputs: int, *, bins: Sequence[int], width: int | None, norm: str) -> None:
        super().__init__()
        self.width, self.bins = width or min(inputs, MAX_CONTEXT), tuple(bins)
        reduced = max(inputs // max(len(self.bins), 1), 1)
        self.branches = nn.ModuleList(ConvNormReLU(inputs, reduced, 1, norm) for _ in self.bins)
        self.merge = ConvNormReLU(inputs + reduced * len(self.bins), self.width, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, width, H, W)."""
        around = [
            F.interpolate(branch(F.adaptive_avg_pool2d(x, n)), size=x.shape[-2:], mode="nearest")
            for n, branch in zip(self.bins, self.branches, strict=True)
        ]
        return self.merge(torch.cat([x, *around], 1))


class GatedContext(nn.Module):
    """`fusion=pyramid`: the deepest maps summed behind gates, as all other levels are, then a context module.

    Separate trunks that meet at every level, but go on alone: each runs once, whatever the combinations. (In the
    published network, `fusion=esanet`, the first modality's trunk carries what was fused.)

    Args:
        widths: of the modalities' deepest maps; where they differ, all are projected to the largest, without a bias.
        bins, width, norm: of the context module, see `Context`.
    """

    tasks: ClassVar[tuple[str, ...]] = ("segmentation",)

    def __init__(
        self, widths: Mapping[str, int], *, bins: Sequence[int], width: int | None, norm: str
    ) -> None:
        super().__init__()
        common = max(widths.values())
        self.projections = nn.ModuleList(
            nn.Identity() if w == common else PointwiseLinear(w, common, bias=False) for w in widths.values()
        )
        self.sum = GatedSum(len(widths), common)
        self.context = Context(common, bins=bins, width=width, norm=norm)
        self.width = self.context.width

    def forward(self, features: Mapping[str, Tensor], available: Tensor) -> Tensor:
        """Maps (B, D_m, H, W) of the modalities `available` (B, M) to (B, width, H, W)."""
        projected = {m: f(x) for f, (m, x) in zip(self.projections, features.items(), strict=True)}
        return self.context(self.sum(projected, available))
