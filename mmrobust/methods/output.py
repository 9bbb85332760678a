"""What methods pass on: features and predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from mmrobust.models.pyramid import Pyramid

Features = Any  # any nest (dict, list, tuple) of tensors, rows first


@dataclass
class Output:
    """What `fuse` returns: logits (B, C) or (B, C, H, W), and whatever else the losses need, rows first.

    `logits` may be given as a decoder in training has them, with those at coarser resolutions: they become `side`.
    """

    logits: Tensor
    unimodal: dict[str, Any] = field(default_factory=dict)  # what heads say of one modality alone
    fused: Tensor | Pyramid | None = None  # what the head sees; teachers are asked for it
    extras: dict[str, Any] = field(default_factory=dict)
    side: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.logits, Tensor):
            self.logits, self.side = self.logits


def tensors(features: Features) -> list[Tensor]:
    """The tensors in a nest."""
    found: list[Tensor] = []
    apply_to_collection(features, Tensor, found.append)
    return found
