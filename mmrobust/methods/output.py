"""What methods pass on: features and predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from mmrobust.models.heads import Prediction
from mmrobust.models.pyramid import Pyramid

Features = Any  # any nest (dict, list, tuple) of tensors, rows first


@dataclass
class Output:
    """What `fuse` returns: the prediction, and whatever else the losses need, rows first.

    `weights` or `confidence` in `extras`, (B, M) or (B, M, ...), say how much each modality counts; they are shown
    beside predictions.
    """

    prediction: Prediction
    unimodal: dict[str, Prediction] = field(default_factory=dict)  # what heads say of one modality alone
    fused: Tensor | Pyramid | None = None  # what the head sees; teachers are asked for it
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def logits(self) -> Tensor:
        """(B, C) or (B, C, H, W)."""
        return self.prediction.logits

    @property
    def side(self) -> tuple[Tensor, ...]:
        """Logits at other resolutions, in training."""
        return self.prediction.side


def tensors(features: Features) -> list[Tensor]:
    """The tensors in a nest."""
    found: list[Tensor] = []
    apply_to_collection(features, Tensor, found.append)
    return found


def stacked_logits(unimodal: dict[str, Prediction]) -> Tensor:
    """The logits of every modality alone, (B, M, C, ...)."""
    return torch.stack([prediction.logits for prediction in unimodal.values()], 1)


def mean_over_available(losses: Tensor, available: Tensor) -> Tensor:
    """The mean over all rows of losses (B,) or (B, M), which are 0 where `available`, of the same shape, is false."""
    return torch.where(available, losses, 0).mean(0)
