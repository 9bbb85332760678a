"""Encoders as sequences of stages, each of which gives a level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

from torch import Tensor, nn

from mmrobust.config.build import find_class, is_class_path
from mmrobust.data.spec import Modality
from mmrobust.errors import UserError
from mmrobust.models.encoders import Tiny, check_tiny, use_group_norm
from mmrobust.models.initialization import keep_weights
from mmrobust.models.pretraining import load_weights, pixel_scale, timm_network
from mmrobust.models.pyramid import Pyramid


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


class ChannelsLast(nn.Module):
    """A stage that works on maps (B, H, W, D), for levels (B, D, H, W).

    Args:
        stage: it.
        embeds: whether it reads the image itself, (B, C, H, W).
    """

    def __init__(self, stage: nn.Module, embeds: bool) -> None:
        super().__init__()
        self.stage, self.embeds = stage, embeds

    def forward(self, x: Tensor) -> Tensor:
        return self.stage(x if self.embeds else x.movedim(1, -1)).movedim(-1, 1)


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
    except (
        AttributeError,
        AssertionError,
        LookupError,
        NotImplementedError,
        RuntimeError,
        TypeError,
    ) as error:
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
    stages = _timm_stages(network)
    if stages is None:
        whole = network if scale is None else nn.Sequential(scale, network)
        return Whole(whole, widths, strides, channels_last)
    if scale is not None:
        stages[0].insert(0, scale)
    modules = [stage[0] if len(stage) == 1 else nn.Sequential(*stage) for stage in stages]
    if channels_last:
        modules = [ChannelsLast(stage, embeds=i == 0) for i, stage in enumerate(modules)]
    return Staged(modules, widths, strides)


def _timm_stages(network: Any) -> list[list[nn.Module]] | None:
    """What runs one after another up to each level of a network of timm's; None if it is no such sequence."""
    taps = getattr(network, "return_layers", None)
    if taps is not None and isinstance(network, nn.ModuleDict):
        modules, ends = list(network.values()), [i for i, key in enumerate(network) if key in taps]
    else:
        # the families of EfficientNet and MobileNet: a stem, then `blocks`, and how many of these a level has
        passed = [level.get("stage") for level in network.feature_info.get_dicts()]
        if None in passed or network.feature_hooks is not None:
            return None
        stem = [module for key, module in network.named_children() if key != "blocks"]
        modules, ends = [*stem, *network.blocks], [len(stem) + count - 1 for count in passed]
    return [modules[a + 1 : b + 1] for a, b in pairwise([-1, *ends])]
