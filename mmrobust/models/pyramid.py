"""Feature pyramids (maps at several resolutions) and their fusion over modalities.

In eval mode, the rows of a batch do not affect one another. An absent modality's features affect neither the result
nor any gradient.
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

# Upper bound of a context module's channels where the configuration sets none.
MAX_CONTEXT = 512


class Pyramid(NamedTuple):
    """Maps of one input or of a combination: the coarsest, and the finer ones that a decoder adds as skips."""

    deep: Tensor  # (B, D, h, w)
    skips: tuple[Tensor, ...]  # (B, D_l, H_l, W_l), coarse to fine


def deepest(features: Tensor | Pyramid) -> Tensor:
    """The part of the features that a method transforms: a pyramid's coarsest map, otherwise the feature itself."""
    return features.deep if isinstance(features, Pyramid) else features


def with_deepest(features: Any, deep: Tensor) -> Any:
    """Replace the deepest map of the features and keep the skips."""
    return features._replace(deep=deep) if isinstance(features, Pyramid) else deep


def levels(features: Tensor | Pyramid) -> list[Tensor]:
    """All maps of the features, coarse to fine."""
    return [features.deep, *features.skips] if isinstance(features, Pyramid) else [features]


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps (B, C, h, w) to (B, C, *size), bilinearly."""
    if maps.shape[-2:] == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def by_level(function: Callable[[dict[str, Tensor]], Tensor], features: Mapping[str, Any]) -> Any:
    """Apply a function to the modalities' features, or to every level of their pyramids."""
    every = {m: levels(x) for m, x in features.items()}
    count = len(next(iter(every.values())))
    deep, *skips = [function({m: maps[i] for m, maps in every.items()}) for i in range(count)]
    return Pyramid(deep, tuple(skips)) if isinstance(next(iter(features.values())), Pyramid) else deep


class ConvNormReLU(nn.Sequential):
    """A size-preserving convolution without bias, a norm and a ReLU."""

    def __init__(self, inputs: int, width: int, kernel: int, norm: str) -> None:
        convolution = nn.Conv2d(inputs, width, kernel, padding=kernel // 2, bias=False)
        super().__init__(convolution, normalization(norm, width, 2), nn.ReLU(inplace=True))


class SqueezeExcitation(nn.Module):
    """Scales the channels by gates in (0, 1), computed from the mean over all places; a zero map stays zero.

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
    """Sums the maps of the available modalities, each scaled by its own squeeze-and-excitation gate.

    Source: the fusion of ESANet (Seichter et al., ICRA 2021, arXiv 2011.06961) for two modalities. MMANet's released
    code sets absent modalities to zero, which the gates preserve.

    Args:
        count: number of modalities.
        width: channels of their maps.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(SqueezeExcitation(width) for _ in range(count))

    def forward(self, features: Mapping[str, Tensor], available: Tensor) -> Tensor:
        """Fuse the maps (B, D, H, W) of the modalities that `available` (B, M) marks to one (B, D, H, W)."""
        check_places(features)
        gated = (gate(x) for gate, x in zip(self.gates, masked(features, available), strict=True))
        return functools.reduce(torch.add, gated)


class Skips(nn.Module):
    """Fuses the finer levels of all modalities by gated sums; the caller fuses the deepest maps.

    Maps are resized to the first modality's size at each level.

    Args:
        count: number of modalities.
        widths: channels of the skips, coarse to fine, equal for all modalities.
    """

    def __init__(self, count: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(GatedSum(count, width) for width in widths)

    def forward(self, deep: Tensor, features: Mapping[str, Pyramid], available: Tensor) -> Pyramid:
        """Build the fused pyramid from the fused deepest map, every modality's pyramid and `available` (B, M)."""
        first = next(iter(features.values()))
        fused = []
        for i, fuse in enumerate(self.levels):
            size = first.skips[i].shape[-2:]
            fused.append(fuse({m: resized(x.skips[i], size) for m, x in features.items()}, available))
        return Pyramid(deep, tuple(fused))


class NoSkips(nn.Module):
    """Replaces `Skips` where features have one resolution, and returns the fused feature unchanged."""

    def forward(self, deep: Tensor, features: Mapping[str, Any], available: Tensor) -> Tensor:
        return deep


class Levelwise(nn.Module):
    """Applies a fusion of single maps to pyramids: it fuses the deepest level, gated sums fuse the others."""

    def __init__(self, fusion: nn.Module, skips: nn.Module) -> None:
        super().__init__()
        self.fusion, self.skips = fusion, skips
        self.width = cast(int, fusion.width)

    def forward(self, features: Mapping[str, Pyramid], available: Tensor) -> Pyramid:
        deep = self.fusion({m: pyramid.deep for m, pyramid in features.items()}, available)
        return self.skips(deep, features, available)


class Context(nn.Module):
    """Pyramid pooling (Zhao et al., CVPR 2017, arXiv 1612.01105): context at several scales.

    For every n in `bins`, the map is averaged to n x n places, reduced in channels, enlarged to the map's size and
    concatenated with it. A 1x1 convolution maps the concatenation to `width` channels.

    Args:
        inputs: channels of the map.
        bins: sizes of the averaged maps; ESANet's release uses 1 and 5.
        width: channels of the result; null: those of the map, but at most MAX_CONTEXT.
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
    """`fusion=pyramid`: gated sums of the deepest maps, as at all other levels, then a context module.

    The trunks stay separate; their maps are fused at every level, but the fused maps do not return to a trunk. Each
    trunk thus runs once for all combinations. (In the published network, `fusion=esanet`, the first modality's trunk
    processes the fused maps further.)

    Args:
        widths: channels of the modalities' deepest maps; if they differ, linear maps without bias project all to the
            largest.
        bins, width, norm: keys of the context module, see `Context`.
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
        """Fuse the maps (B, D_m, H, W) of the modalities that `available` (B, M) marks to (B, width, H, W)."""
        projected = {m: f(x) for f, (m, x) in zip(self.projections, features.items(), strict=True)}
        return self.context(self.sum(projected, available))
