"""Builds the modalities' encoders and their fusion from the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from mmrobust.config.keys import encoder_entries
from mmrobust.data.spec import DataSpec
from mmrobust.errors import UserError
from mmrobust.models.encoders import build_encoder
from mmrobust.models.pyramid import Levelwise, NoSkips, Skips
from mmrobust.models.pyramid_encoder import build_pyramids
from mmrobust.models.stages import Staged, build_levels

# Maps the encoders' widths, or the encoders themselves (`takes_encoders`), to a fusion module.
Fusion = Callable[[Any], nn.Module]


def takes_encoders(fusion: Fusion | None) -> bool:
    """Whether the fusion begins inside the encoders and takes their later layers, see `models.trunks`."""
    return bool(getattr(getattr(fusion, "func", fusion), "takes_encoders", False))


def encoder_keys(encoder: Mapping[str, Any], spec: DataSpec) -> dict[str, dict[str, Any]]:
    """The keys of `build_encoder` for every modality.

    Args:
        encoder: keys for all modalities; an entry with a modality's name holds the keys of that modality.
        spec: the dataset's description.
    """
    return {m: _own_keys(encoder.get(m) or encoder) for m in spec.modalities}


def _own_keys(encoder: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `build_encoder` alone, without those of modalities, the decoder and the optimizer."""
    others = {*encoder_entries(encoder), "decoder", "lr_factor"}
    return {key: value for key, value in encoder.items() if key not in others}


def by_lr_factor(network: nn.Module, encoder: Mapping[str, Any]) -> dict[float, list[nn.Parameter]]:
    """Group a method's trainable parameters by learning-rate factor: `encoder.lr_factor` for `encoders`, else 1.

    The factor of layers that a fusion took out of an encoder (`takes_encoders`) is 1.
    """
    factors: dict[nn.Parameter, float] = {}
    # Some methods have no attribute `encoders`, e.g. those with one network per combination.
    for m, module in getattr(network, "encoders", {}).items():
        own = encoder.get(m) or encoder
        factors |= dict.fromkeys(module.parameters(), float(own["lr_factor"]))
    found: dict[float, list[nn.Parameter]] = {}
    for p in network.parameters():
        if p.requires_grad:
            found.setdefault(factors.get(p, 1.0), []).append(p)
    return found


def build_encoders(encoder: Mapping[str, Any], spec: DataSpec, fusion: Fusion | None) -> nn.ModuleDict:
    """Build the encoders in the form that the task and the fusion require: whole, staged or as pyramids.

    Raises:
        UserError: a modality's encoder cannot be built, or not in this form.
    """
    keys = encoder_keys(encoder, spec)
    if takes_encoders(fusion):
        return nn.ModuleDict({m: _staged(m, x, keys[m]) for m, x in spec.modalities.items()})
    if spec.task == "segmentation":
        return build_pyramids(spec.modalities, keys)
    return nn.ModuleDict({m: build_encoder(x, **keys[m]) for m, x in spec.modalities.items()})


def _staged(name: str, modality: Any, keys: Mapping[str, Any]) -> Staged:
    if keys["name"] != "tiny" and keys["width"] is not None:
        raise UserError(
            f"{name}: encoder.width={keys['width']} projects the end of an encoder that the chosen fusion takes apart; "
            "leave it null"
        )
    if modality.kind == "video":
        raise UserError(
            f"{name}: the chosen fusion takes encoders of images apart, not of videos; take another"
        )
    encoder = build_levels(modality, **keys)
    if not isinstance(encoder, Staged):
        raise UserError(
            f"{name}: the chosen fusion takes encoders apart, which {keys['name']!r} does not allow; take one such as "
            "resnet18, convnext_atto or tiny, or another fusion"
        )
    return encoder


def build_fusion(fusion: Fusion, encoders: nn.ModuleDict, spec: DataSpec) -> nn.Module:
    """Build the fusion of these encoders. A fusion that takes encoders apart removes its layers from them.

    Raises:
        UserError: the fusion does not serve the dataset's task.
    """
    tasks = getattr(getattr(fusion, "func", fusion), "tasks", None)
    if tasks is not None and spec.task not in tasks:
        raise UserError(
            f"the chosen fusion does {' and '.join(tasks)}, but the dataset's task is {spec.task}"
        )
    if takes_encoders(fusion):
        return fusion(dict(encoders.items()))
    built = fusion({m: e.width for m, e in encoders.items()})
    return Levelwise(built, skips_of(encoders)) if spec.task == "segmentation" else built


def skips_of(encoders: nn.ModuleDict) -> nn.Module:
    """Build the fusion of the encoders' skips, if they have any, for methods that fuse the deepest features
    themselves."""
    widths = getattr(next(iter(encoders.values())), "skip_widths", None)
    return NoSkips() if widths is None else Skips(len(encoders), widths)
