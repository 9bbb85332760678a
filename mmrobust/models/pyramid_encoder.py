"""Encoders of single modalities that give a pyramid of maps, of common widths for all modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmrobust.data.spec import Modality
from mmrobust.errors import UserError
from mmrobust.models.encoders import PointwiseLinear
from mmrobust.models.pyramid import Pyramid
from mmrobust.models.stages import Staged, Whole, build_levels

FINEST = 4  # stride of the finest level that is a skip: the stem's map is as large as it is poor
MOST_SKIPS = 3


class PyramidEncoder(nn.Module):
    """An encoder that gives a `Pyramid`: its last level, and up to three finer ones.

    Args:
        encoder: with `levels`, `widths` and `strides`.
        width: channels of the deepest map; null: the network's own.

    Attributes:
        width: of the deepest map.
        skip_widths: of the skips, coarse to fine.
        stride: of the finest level.
    """

    def __init__(self, encoder: Staged | Whole, width: int | None) -> None:
        super().__init__()
        self.encoder = encoder
        widths, strides = encoder.widths, encoder.strides
        self.kept = skip_levels(strides)
        self.width = width or widths[-1]
        self.skip_widths = [widths[i] for i in self.kept]
        self.stride = strides[self.kept[-1]] if self.kept else strides[-1]
        self.projection = project(widths[-1], self.width)
        self.skip_projections = nn.ModuleList(nn.Identity() for _ in self.kept)

    def forward(self, x: Tensor) -> Pyramid:
        frames = 0
        if x.dim() == 5:  # a video: the mean over the frames of their maps
            batch, _, frames = x.shape[:3]
            x = x.transpose(1, 2).flatten(0, 1)
        maps = self.encoder.levels(x)
        if frames:
            maps = [level.unflatten(0, (batch, frames)).mean(1) for level in maps]
        skips = [change(maps[i]) for i, change in zip(self.kept, self.skip_projections, strict=True)]
        return Pyramid(self.projection(maps[-1]), tuple(skips))

    def unify(self, widths: Sequence[int]) -> None:
        """Project the skips to these widths where they have others."""
        self.skip_projections = nn.ModuleList(map(project, self.skip_widths, widths))
        self.skip_widths = list(widths)


def skip_levels(strides: Sequence[int]) -> list[int]:
    """Which levels (fine to coarse) are skips, coarse to fine: the last of each stride, up to three, the stem's only
    where there would be fewer than two without it."""
    finer = [i for i in range(len(strides) - 1) if strides[i] < min(strides[i + 1 :])]
    without_stem = [i for i in finer if strides[i] >= FINEST]
    return (without_stem if len(without_stem) >= 2 else finer)[-MOST_SKIPS:][::-1]


def project(width: int, target: int) -> nn.Module:
    """A linear map of the channels, if there is anything to change."""
    return nn.Identity() if width == target else PointwiseLinear(width, target)


def build_pyramid(modality: Modality, keys: Mapping[str, Any]) -> PyramidEncoder:
    """One modality's; raises as `build_levels`."""
    width = None if keys["name"] == "tiny" else keys["width"]
    return PyramidEncoder(build_levels(modality, **keys), width)


def build_pyramids(
    modalities: Mapping[str, Modality], keys: Mapping[str, Mapping[str, Any]]
) -> nn.ModuleDict:
    """A `PyramidEncoder` for every modality, whose skips have common widths: the largest of each level.

    Args:
        modalities: what they read.
        keys: those of `build_encoder` for every modality.

    Raises:
        UserError: as `build_levels`; levels that do not lie on each other.
    """
    encoders = {}
    for m, modality in modalities.items():
        try:
            encoders[m] = build_pyramid(modality, keys[m])
        except UserError as error:
            raise UserError(f"{m}: {error}") from error
    strides = {m: [e.encoder.strides[i] for i in (*e.kept, -1)] for m, e in encoders.items()}
    if len({tuple(s) for s in strides.values()}) > 1:
        found = "; ".join(f"{m} {', '.join(map(str, s))}" for m, s in strides.items())
        raise UserError(
            "segmentation fuses the modalities level by level, but their encoders' levels have different strides "
            f"(skips, coarse to fine, and the deepest): {found}; give all modalities encoders of one family"
        )
    common = [max(widths) for widths in zip(*(e.skip_widths for e in encoders.values()), strict=True)]
    for encoder in encoders.values():
        encoder.unify(common)
    return nn.ModuleDict(encoders)
