"""Encoders of one modality: any input kind to features (B, D) or a map (B, D, ...)."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class PointwiseLinear(nn.Linear):
    """A linear map of the channels: (B, D) -> (B, E), and (B, D, ...) -> (B, E, ...) at every place."""

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
    """Three strided convolutions for maps and sequences, two layers for vectors; a few thousand weights.

    `exact` keeps maps at exactly a half, a quarter and an eighth of the input, which a decoder needs.
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
    """Any image network of timm, from its stem to the map before its pooling."""

    def __init__(self, modality: Modality, *, name: str, pretrained: bool, norm: str, **options: Any) -> None:
        super().__init__()
        self.network = timm_network(
            name,
            pretrained=pretrained,
            size=modality.shape[1:],
            in_chans=modality.shape[0],
            num_classes=0,
            global_pool="",
            **options,
        )
        # some networks widen their map once more before the pooling
        self.width = getattr(self.network, "head_hidden_size", None) or self.network.num_features
        if norm == "group":
            use_group_norm(self.network)

    def forward(self, x: Tensor) -> Tensor:
        features = self.network(x)
        channels_last = features.dim() == 3 or features.shape[1] != self.width  # (B, tokens, D), (B, H, W, D)
        return features.movedim(-1, 1) if channels_last else features


def timm_network(name: str, *, pretrained: bool, size: Sequence[int], **options: Any) -> Any:
    """What timm makes of a name.

    Args:
        name: of the model.
        pretrained: with weights.
        size: (H, W) of the input, for which a model is made that knows one size alone.
        options: of `timm.create_model`.

    Raises:
        UserError: it knows no such model, or none for this size, or the weights cannot be had.
    """
    import timm  # 4 s

    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UserError(
            f"timm has no model {name!r}{hint} (also: tiny, or the dotted path of your own class)"
        )
    known = timm.get_pretrained_cfg(name)
    if known is not None and known.fixed_input_size and tuple(size) != tuple(known.input_size[1:]):
        options = {"img_size": tuple(size)} | options
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        if "img_size" not in options or (isinstance(error, TypeError) and "'img_size'" not in str(error)):
            if pretrained and isinstance(error, RuntimeError):
                raise UserError(_without_weights(name, error)) from error
            raise
        height, width = known.input_size[1:] if known is not None else size
        raise UserError(
            f"{name!r} is made for {height} x {width} and cannot be made for {tuple(size)} ({error}); set "
            f"data.modalities.<name>.size={height}, or data.image_size={height}, or take another encoder"
        ) from error
    except OSError as error:
        if not pretrained:
            raise
        raise UserError(_without_weights(name, error)) from error


def _without_weights(name: str, error: Exception) -> str:
    return (
        f"the pretrained weights of {name!r} could not be had: {type(error).__name__}: {error}. "
        "They come from the Hugging Face hub at first use: run once on a machine that is online (the "
        "download is kept under HF_HOME), or set encoder.pretrained=false"
    )


class OverFrames(nn.Module):
    """An image encoder for videos: (B, C, T, H, W) -> the mean over the frames of its maps."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.width = encoder.width

    def forward(self, x: Tensor) -> Tensor:
        batch, _, frames = x.shape[:3]
        maps = self.encoder(x.transpose(1, 2).flatten(0, 1))
        return maps.unflatten(0, (batch, frames)).mean(1)


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
    norm: str,
    width: int | None,
    options: Mapping[str, Any],
) -> nn.Module:
    """The encoder of one modality.

    Args:
        modality: kind and shape of the input.
        name: `tiny`, the name of a timm model, or the dotted path of a class `E(modality, *, pretrained,
            norm, **options)` with an attribute `width`.
        pretrained: with weights trained on images (stems are adapted to the number of channels by timm).
        norm: `batch` or `group`.
        width: channels of the features; None is the network's own.
        options: passed on to the constructor.

    Returns:
        A module with `width`: (B, *shape) -> (B, width) or (B, width, ...).

    Raises:
        UserError: unknown name or norm, weights that cannot be had, a kind that the encoder cannot read.
    """
    if norm not in ("batch", "group"):
        raise UserError(f"encoder.norm={norm!r} is not known; choose batch or group")
    image = (
        Modality("image", (modality.shape[0], *modality.shape[2:])) if modality.kind == "video" else modality
    )
    keys: dict[str, Any] = {"pretrained": pretrained, "norm": norm}
    if name == "tiny":
        if width is None:
            raise UserError("the encoder 'tiny' needs encoder.width, a number of channels such as 64")
        build: Callable[..., nn.Module] = partial(Tiny, image, width=width, **keys)
    elif is_class_path(name):
        build = partial(find_class(name), image, **keys)
    elif image.kind in ("image", "depth", "spectrogram"):
        build = partial(Timm, image, name=name, **keys)
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
    if pretrained:
        keep_weights(encoder)
    if modality.kind == "video":
        encoder = OverFrames(encoder)
    return encoder if width in (None, encoder.width) else Projected(encoder, width)


def use_group_norm(network: nn.Module) -> None:
    """Replace every BatchNorm2d by a GroupNorm of the same width, keeping what follows it (timm's activations)."""
    for module in list(network.modules()):
        for key, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                tail = [layer for layer in child.children() if not isinstance(layer, nn.Identity)]
                norm = normalization("group", child.num_features, 2)
                setattr(module, key, nn.Sequential(norm, *tail) if tail else norm)


@contextmanager
def running_statistics(network: nn.Module, active: bool = True) -> Iterator[None]:
    """Within, BatchNorm layers use their running statistics: a single row has no variance of its own."""
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
    """Whether BatchNorm would see at most one row: of this rank's `count`, or of all ranks', if it is SyncBatchNorm,
    so that they agree on whether it meets."""
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
