"""Encoders as sequences of stages: for pyramids, and for fusions that begin between stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from mmrobust.config.build import find_class, is_class_path
from mmrobust.data.spec import Modality
from mmrobust.errors import UserError
from mmrobust.models.encoders import (
    PointwiseLinear,
    Tiny,
    check_tiny,
    use_group_norm,
)
from mmrobust.models.initialization import keep_weights
from mmrobust.models.pretraining import load_weights, pixel_scale, timm_network
from mmrobust.models.pyramid import Pyramid

FINEST = 4  # stride of the finest level that is a skip: the stem's map is as large as it is poor
MOST_SKIPS = 3


class Staged(nn.Module):
    """An encoder whose stages run one after another; each gives a level.

    Attributes:
        stages: the modules.
        widths: of the levels, fine to coarse.
        strides: of the levels: pixels for each place, along one side.
        width: of the last level.
        every: whether all levels come out, as a `Pyramid`, or the last one alone.
    """

    def __init__(self, stages: Sequence[nn.Module], widths: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.stages, self.widths, self.strides = nn.ModuleList(stages), list(widths), list(strides)
        self.every = False

    @property
    def width(self) -> int:
        return self.widths[-1]

    def levels(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) to the levels, fine to coarse."""
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels

    def cut(self, first: int) -> list[nn.Module]:
        """Take away the stages from `first` on: what is left ends before it."""
        rest = list(self.stages[first:])
        self.stages = self.stages[:first]
        self.widths, self.strides = self.widths[:first], self.strides[:first]
        return rest

    def forward(self, x: Tensor) -> Tensor | Pyramid:
        levels = self.levels(x)
        return Pyramid(levels[-1], tuple(levels[-2::-1])) if self.every else levels[-1]


class Whole(nn.Module):
    """A network that gives its levels, fine to coarse, but cannot be taken apart."""

    def __init__(
        self, network: nn.Module, widths: Sequence[int], strides: Sequence[int], channels_last: bool
    ) -> None:
        super().__init__()
        self.network, self.widths, self.strides = network, list(widths), list(strides)
        self.channels_last = channels_last

    def levels(self, x: Tensor) -> list[Tensor]:
        levels = self.network(x)
        levels = [levels] if isinstance(levels, Tensor) else list(levels)
        return [level.movedim(-1, 1) for level in levels] if self.channels_last else levels


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


def build_levels(
    modality: Modality,
    *,
    name: str,
    pretrained: bool,
    weights: str | None,
    norm: str,
    width: int | None,
    options: Mapping[str, Any],
) -> Staged | Whole:
    """The encoder of one modality as levels; arguments and errors as of `build_encoder`, except `width`, which is
    the number of channels of `tiny` alone.

    Raises:
        UserError: also a network that has no levels to give.
    """
    if not modality.traits.is_map:
        raise UserError(f"an encoder's levels are maps, which {modality.kind}s do not have; use images")
    shape = (modality.shape[0], *modality.shape[2:]) if modality.kind == "video" else modality.shape
    image = Modality("image", shape)
    if name == "tiny":
        if width is None:
            raise UserError("the encoder 'tiny' needs encoder.width, a number of channels such as 64")
        check_tiny(weights)
        layers = Tiny(image, pretrained=pretrained, norm=norm, width=width, exact=True, **options).layers
        stages = [layers[i : i + 3] for i in range(0, len(layers), 3)]
        return Staged(stages, [cast(nn.Conv2d, stage[0]).out_channels for stage in stages], [2, 4, 8])
    if is_class_path(name):
        network = find_class(name)(image, pretrained=pretrained, norm=norm, **options)
        if weights is not None:
            load_weights(network, weights)
        if pretrained or weights is not None:
            keep_weights(network)
        if isinstance(network, Staged):
            return network
        widths = getattr(network, "widths", [network.width])
        return Whole(network, widths, getattr(network, "strides", [1] * len(widths)), channels_last=False)
    return _timm_levels(image, name, pretrained, weights, norm, options)


def _timm_levels(
    image: Modality,
    name: str,
    pretrained: bool,
    weights: str | None,
    norm: str,
    options: Mapping[str, Any],
) -> Staged | Whole:
    chosen = {**options, "in_chans": image.shape[0], "features_only": True}
    try:
        network = timm_network(name, pretrained=pretrained, weights=weights, size=image.shape[1:], **chosen)
    except (AttributeError, AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        raise UserError(
            f"timm cannot take the levels out of {name!r} ({type(error).__name__}: {error}); choose another "
            "encoder, such as resnet18, convnext_atto or tiny"
        ) from error
    scale = pixel_scale(network, image, pretrained or weights is not None)
    if pretrained or weights is not None:
        keep_weights(network)
    if norm == "group":
        use_group_norm(network)
    widths, strides = network.feature_info.channels(), network.feature_info.reduction()
    channels_last = str(getattr(network, "output_fmt", "")).endswith("NHWC")
    taps = getattr(network, "return_layers", None)
    if taps is None or channels_last or not isinstance(network, nn.ModuleDict):
        whole = network if scale is None else nn.Sequential(scale, network)
        return Whole(whole, widths, strides, channels_last)
    stages: list[list[nn.Module]] = [[]]
    for key, module in network.items():
        stages[-1].append(module)
        if key in taps:
            stages.append([])
    if scale is not None:
        stages[0].insert(0, scale)
    modules = [stage[0] if len(stage) == 1 else nn.Sequential(*stage) for stage in stages if stage]
    return Staged(modules, widths, strides)


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
