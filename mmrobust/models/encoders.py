"""Encoders of one modality, which map an input of any kind to features (B, D) or (B, D, ...)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmrobust import ranks
from mmrobust.config.build import find_class, is_class_path
from mmrobust.data.spec import Modality
from mmrobust.errors import UserError
from mmrobust.models.initialization import keep_weights
from mmrobust.models.pretraining import load_weights, pixel_scale, timm_network

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class PointwiseLinear(nn.Linear):
    """A linear map of the channels, (B, D) -> (B, E), applied to maps (B, D, ...) at every place."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return super().forward(x)
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def normalization(norm: str, channels: int, dimensions: int) -> nn.Module:
    """BatchNorm or GroupNorm (at most 32 groups) over `channels`; `dimensions` is 1 for (B, D) and (B, D, T)."""
    if norm == "group":
        return nn.GroupNorm(math.gcd(32, channels), channels)
    return _BATCH_NORMS[dimensions - 1](channels)


class Tiny(nn.Module):
    """Three strided convolutions for maps and sequences, two linear layers for vectors; a few thousand weights.

    With `exact`, the maps have exactly a half, a quarter and an eighth of the input's size, as a decoder requires.
    """

    def __init__(
        self, modality: Modality, *, pretrained: bool, norm: str, width: int, exact: bool = False
    ) -> None:
        super().__init__()
        if pretrained:
            raise UserError("the encoder 'tiny' has no pretrained weights; set encoder.pretrained=false")
        self.width = width
        channels = [modality.shape[0], max(width // 4, 1), max(width // 2, 1), width]
        if modality.kind == "vector":
            channels = [modality.shape[0], width, width]
        dimensions = {"vector": 1, "sequence": 1}.get(modality.kind, 2)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(itertools.pairwise(channels)):
            if modality.kind == "vector":
                layers.append(nn.Linear(a, b, bias=False))
            else:
                convolution = nn.Conv1d if dimensions == 1 else nn.Conv2d
                padding = 2 if exact and not i else 1
                layers.append(convolution(a, b, 3 if i else 5, stride=2, padding=padding, bias=False))
            layers += [normalization(norm, b, dimensions), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Timm(nn.Module):
    """An image network of timm, from the stem to the map before the pooling."""

    def __init__(
        self,
        modality: Modality,
        *,
        name: str,
        pretrained: bool,
        weights: str | None,
        norm: str,
        **options: Any,
    ) -> None:
        super().__init__()
        options |= {"in_chans": modality.shape[0], "num_classes": 0, "global_pool": ""}
        self.network = timm_network(
            name, pretrained=pretrained, weights=weights, size=modality.shape[1:], **options
        )
        self.scale = pixel_scale(self.network, modality, pretrained or weights is not None)
        # Some networks (e.g. MobileNets) widen the map once more before the pooling.
        self.width = getattr(self.network, "head_hidden_size", None) or self.network.num_features
        if norm == "group":
            use_group_norm(self.network)

    def forward(self, x: Tensor) -> Tensor:
        features = self.network(x if self.scale is None else self.scale(x))
        # (B, tokens, D) of vision transformers, (B, H, W, D) of e.g. Swin
        channels_last = features.dim() == 3 or features.shape[1] != self.width
        return features.movedim(-1, 1) if channels_last else features


class OverFrames(nn.Module):
    """Applies an image encoder to each frame of a video (B, C, T, H, W) and averages the maps to (B, D, ...).

    Attributes:
        averages: if false, the maps of all frames are returned, (B, D, T, ...).
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.width = encoder.width
        self.averages = True

    def forward(self, x: Tensor) -> Tensor:
        batch, _, frames = x.shape[:3]
        maps = self.encoder(x.transpose(1, 2).flatten(0, 1))
        maps = maps.unflatten(0, (batch, frames))
        return maps.mean(1) if self.averages else maps.movedim(1, 2)


def keep_frames(network: nn.Module) -> None:
    """Make the video encoders in `network` return the maps of all frames, see `OverFrames.averages`."""
    for module in network.modules():
        if isinstance(module, OverFrames):
            module.averages = False


class Projected(nn.Module):
    """An encoder followed by a linear map of its channels."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.width = encoder, width
        self.projection = PointwiseLinear(cast(int, encoder.width), width)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.encoder(x))


def build_encoder(
    modality: Modality,
    *,
    name: str,
    pretrained: bool,
    weights: str | None,
    norm: str,
    width: int | None,
    options: Mapping[str, Any],
) -> nn.Module:
    """Build the encoder of one modality.

    Args:
        modality: kind and shape of the input.
        name: one of: `tiny`; `text` (a transformer for text, `tiny` for the other kinds); the name of a timm model;
            for text, the name of an encoder on the Hugging Face hub; the dotted path of a class
            `E(modality, *, pretrained, norm, **options)` with an attribute `width`.
        pretrained: whether to load pretrained weights (timm adapts the stem to the number of channels).
        weights: a file with this network's weights, used instead of the download.
        norm: `batch` or `group`.
        width: channels of the features; None: the network's own.
        options: further arguments of the constructor.

    Returns:
        A module with an attribute `width`, (B, *shape) -> (B, width) or (B, width, ...).

    Raises:
        UserError: the name or the norm is unknown, the weights are unavailable or do not fit, or the encoder cannot
            read this kind of input.
    """
    # Imported here, because the blocks of that module import this one.
    from mmrobust.models.text import text_encoder

    if norm not in ("batch", "group"):
        raise UserError(f"encoder.norm={norm!r} is not known; choose batch or group")
    image = (
        Modality("image", (modality.shape[0], *modality.shape[2:])) if modality.kind == "video" else modality
    )
    keys: dict[str, Any] = {"pretrained": pretrained, "norm": norm}
    if name == "text" and modality.kind != "text":
        name, options = "tiny", {}
    if modality.kind == "text" and not is_class_path(name):
        if weights is not None:
            raise UserError(
                f"encoder.weights={weights} is for networks of images; a text encoder takes none, set it to null"
            )
        build: Callable[..., nn.Module] = partial(
            text_encoder, name, pretrained=pretrained, length=modality.shape[0], width=width
        )
    elif name == "tiny":
        if width is None:
            raise UserError("the encoder 'tiny' needs encoder.width, a number of channels such as 64")
        check_tiny(weights)
        build = partial(Tiny, image, width=width, **keys)
    elif is_class_path(name):
        build = partial(find_class(name), image, **keys)
    elif image.traits.is_map:
        build = partial(Timm, image, name=name, weights=weights, **keys)
    else:
        raise UserError(
            f"the encoder {name!r} reads images, depth and spectrograms, not {modality.kind}s; use tiny or a class of yours"
        )
    try:
        encoder = build(**options)
    except TypeError as error:
        raise UserError(
            f"the encoder {name!r} does not take encoder.options={dict(options)}: {error}"
        ) from error
    if weights is not None and is_class_path(name):
        load_weights(encoder, weights)
    if pretrained or weights is not None:
        keep_weights(encoder)
    if modality.kind == "video":
        encoder = OverFrames(encoder)
    return encoder if width in (None, encoder.width) else Projected(encoder, width)


def check_tiny(weights: str | None) -> None:
    """Refuse a weights file for `tiny`. Raises: UserError: `weights` is set."""
    if weights is not None:
        raise UserError(
            f"the encoder 'tiny' has no weights to load; set encoder.weights=null, not {weights}, or take "
            "encoder=timm encoder.name=<the network of that file>"
        )


def use_group_norm(network: nn.Module) -> None:
    """Replace every BatchNorm2d by a GroupNorm of the same width; keep the activation that timm puts inside it."""
    for module in list(network.modules()):
        for key, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                tail = [layer for layer in child.children() if not isinstance(layer, nn.Identity)]
                norm = normalization("group", child.num_features, 2)
                setattr(module, key, nn.Sequential(norm, *tail) if tail else norm)


@contextmanager
def running_statistics(network: nn.Module, active: bool = True) -> Iterator[None]:
    """A context in which BatchNorm uses its running statistics, because a single row has no variance."""
    kinds = (*_BATCH_NORMS, nn.SyncBatchNorm)
    norms = [m for m in network.modules() if isinstance(m, kinds) and m.training] if active else []
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


def few_rows(network: nn.Module, count: int) -> bool:
    """Whether BatchNorm would see at most one row. BatchNorm sees this rank's `count` rows; SyncBatchNorm sees those of
    all ranks, which must agree on whether it synchronises."""
    if not ranks.active():
        return count <= 1
    norm = next((m for m in network.modules() if isinstance(m, nn.SyncBatchNorm)), None)
    if norm is not None and norm.running_mean is not None:
        count = int(ranks.total(torch.tensor(count, device=norm.running_mean.device)))
    return count <= 1


def scatter_rows(rows: Tensor, features: Tensor, count: int) -> Tensor:
    """Put `features` (R, ...) at `rows` (R,) of a tensor of zeros (count, ...)."""
    return torch.zeros(count, *features.shape[1:], dtype=features.dtype, device=features.device).index_copy(
        0, rows, features
    )
