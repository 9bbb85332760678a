"""Pretrained networks of timm: weights from the hub or a file, and the pixel scale of the pretraining."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust.data.files.images import IMAGENET_MEAN, IMAGENET_STD
from mmrobust.data.spec import Modality
from mmrobust.errors import UserError
from mmrobust.files import foreign_content

# Keys under which training checkpoints store the weights.
CONTAINERS = ("state_dict", "model", "model_state_dict")

# Number of mismatched keys that a message lists.
NAMED = 3

log = logging.getLogger(__name__)

_unread: ContextVar[bool] = ContextVar("_unread", default=False)


@contextmanager
def without_pretrained_weights() -> Iterator[None]:
    """A context that builds networks in the form of their pretrained weights without reading these. A checkpoint then
    replaces the weights, so that their file or download is not needed."""
    token = _unread.set(True)
    try:
        yield
    finally:
        _unread.reset(token)


def reads_weights() -> bool:
    """Whether pretrained weights are read, i.e. not within `without_pretrained_weights`."""
    return not _unread.get()


class PixelScale(nn.Module):
    """Converts colour images from ImageNet's mean and deviation, which datasets use, to those of the pretraining.

    Args:
        mean: mean of the pretraining's pixels in [0, 1], for each of three channels.
        std: their standard deviation.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        ours, theirs = torch.tensor([IMAGENET_MEAN, IMAGENET_STD]), torch.tensor([mean, std])
        scale, shift = ours[1] / theirs[1], (ours[0] - theirs[0]) / theirs[1]
        # The network's name determines these constants; they are not persistent, so that checkpoints keep their keys.
        self.register_buffer("scale", scale[:, None, None], persistent=False)
        self.register_buffer("shift", shift[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        return x * self.scale + self.shift


def pixel_scale(network: Any, image: Modality, pretrained: bool) -> PixelScale | None:
    """The `PixelScale` for a timm network whose pretraining used another mean and deviation than ImageNet's; None if
    none is needed."""
    cfg = network.pretrained_cfg
    mean, std = tuple(cfg["mean"]), tuple(cfg["std"])
    colours = image.kind == "image" and image.shape[0] == len(mean) == 3
    if not pretrained or not colours or (mean, std) == (IMAGENET_MEAN, IMAGENET_STD):
        return None
    return PixelScale(mean, std)


def timm_network(
    name: str, *, pretrained: bool, weights: str | None, size: Sequence[int], **options: Any
) -> Any:
    """Build a timm network without a classifier.

    Args:
        name: name of the timm model.
        pretrained: whether to load weights from the hub.
        weights: a file with this network's weights, used instead of the hub. The stem is adapted to the number of
            channels (`in_chans`; one channel gets the sum of three) and the classifier is left out; all else must fit.
        size: (H, W) of the input; models with a fixed input size are built for it.
        options: arguments of `timm.create_model`.

    Raises:
        UserError: timm has no such model, or none for this size, or the weights are unavailable or of another network.
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
    if not reads_weights():
        weights, pretrained = None, False
    if weights is not None:
        return _with_weights(name, weights, options)
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
        "download is kept under HF_HOME), or name a file with them in encoder.weights, or set "
        "encoder.pretrained=false"
    )


def _with_weights(name: str, weights: str, options: dict[str, Any]) -> Any:
    import timm

    state = read_weights(weights)
    cfg = timm.get_pretrained_cfg(name)
    classifiers = (cfg and cfg.classifier) or ()
    heads = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    dropped = [key for key in state if key.rpartition(".")[0] in heads]
    for key in dropped:
        del state[key]
    # timm converts older names and other stems; its key check is strict because no classifier is expected.
    overlay = {"state_dict": state, "num_classes": 0, "classifier": None, "label_offset": 0}
    overlay = {**options.get("pretrained_cfg_overlay", {}), **overlay}
    options = {k: v for k, v in options.items() if k not in ("num_classes", "pretrained_cfg_overlay")}

    def create(**more: Any) -> Any:
        return timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **more)

    features = ("features_only", "out_indices", "feature_cls", "output_stride")
    try:
        # timm does not check keys for features_only, so the whole network is built first.
        whole = create(**{k: v for k, v in options.items() if k not in features})
    except (RuntimeError, KeyError, IndexError, ValueError, AttributeError, AssertionError) as error:
        raise UserError(
            f"encoder.weights={weights} does not fit {name}: {_what_differs(error)}. Take a file of this network "
            "with timm's or torchvision's keys, or set encoder.name to the network that it was saved from"
        ) from error
    left_out = f"; its classifier ({', '.join(dropped)}) is left out" if dropped else ", without a classifier"
    log.info("%s: weights from %s%s", name, weights, left_out)
    network = whole
    if options.get("features_only"):
        with _quiet("timm.models._builder"):  # which warns of layers that features do not need
            network = create(**options)
    for module in network.modules():
        getattr(module, "pretrained_cfg", {}).pop("state_dict", None)
    return network


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """A context in which a logger emits errors only."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _what_differs(error: Exception) -> str:
    """Shorten torch's list of mismatched keys."""
    lines = [line.strip().rstrip(". ") for line in str(error).splitlines() if line.strip()]
    if len(lines) < 2:
        return f"{type(error).__name__}: {error}"
    told = []
    for line in lines[1:]:
        keys = re.findall(r'"([^"]+)"', line)
        more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
        what = line.partition(" in state_dict")[0].replace("(s)", "s").lower()
        told.append(f"{what} {', '.join(keys[:NAMED])}{more}" if keys else line.replace("torch.Size", ""))
    rest = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
    return "; ".join(told[:NAMED]) + rest


def load_weights(network: nn.Module, weights: str) -> None:
    """Load a weights file into a user's network; keys and shapes must match exactly.

    Raises:
        UserError: the file cannot be read or does not fit.
    """
    if not reads_weights():
        return
    try:
        network.load_state_dict(read_weights(weights))
    except RuntimeError as error:
        raise UserError(
            f"encoder.weights={weights} does not fit {type(network).__name__}: {_what_differs(error)}"
        ) from error


def read_weights(path: str) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file or of a torch pickle (.pth, .pt, .bin) without running its code.

    Raises:
        UserError: the file does not exist, is damaged or of another format, or holds more than tensors.
    """
    file = Path(str(path))
    if not file.is_file():
        raise UserError(f"encoder.weights={path}: no such file; give a .safetensors or .pth file")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes of another kind can make a parser raise anything
        raise UserError(
            f"encoder.weights={path} ({file.stat().st_size} bytes) cannot be loaded: {foreign_content(file)}. Give "
            "a .safetensors or .pth file with nothing but weights"
        ) from error
    if isinstance(found, Mapping):
        found = next((found[key] for key in CONTAINERS if isinstance(found.get(key), Mapping)), found)
    if not isinstance(found, Mapping) or not found or not all(isinstance(x, Tensor) for x in found.values()):
        raise UserError(
            f"encoder.weights={path} holds {type(found).__name__} and not weights by name; give a network's "
            "state_dict"
        )
    # DataParallel and DistributedDataParallel prefix the keys.
    return {str(key).removeprefix("module."): x for key, x in found.items()}
