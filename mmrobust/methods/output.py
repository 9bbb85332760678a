"""The features and outputs that methods exchange with tasks, teachers and evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from mmrobust.models.heads import Prediction
from mmrobust.models.pyramid import Pyramid

# Any nesting (dict, list, tuple) of tensors whose first axis is the row.
Features = Any


@dataclass
class Output:
    """The result of `fuse`. The first axis of every tensor is the row.

    Attributes:
        prediction: the prediction from all visible modalities.
        unimodal: predictions from one modality each, by name.
        fused: the feature that the head receives; distillation compares it with the teacher's.
        extras: everything else that the losses need. The panel shows `weights` or `confidence`, (B, M) or
            (B, M, ...), as the importance of each modality.
    """

    prediction: Prediction
    unimodal: dict[str, Prediction] = field(default_factory=dict)
    fused: Tensor | Pyramid | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def logits(self) -> Tensor:
        """Logits (B, C) or (B, C, H, W)."""
        return self.prediction.logits

    @property
    def side(self) -> tuple[Tensor, ...]:
        """Logits at other resolutions, which decoders add in training."""
        return self.prediction.side


def tensors(features: Features) -> list[Tensor]:
    """All tensors in a nesting."""
    found: list[Tensor] = []
    apply_to_collection(features, Tensor, found.append)
    return found


def stacked_logits(unimodal: dict[str, Prediction]) -> Tensor:
    """Stack the unimodal logits of all modalities to (B, M, C, ...)."""
    return torch.stack([prediction.logits for prediction in unimodal.values()], 1)


def mean_over_available(losses: Tensor, available: Tensor) -> Tensor:
    """Mean over all B rows of losses (B,) or (B, M); a loss counts as 0 where `available` (same shape) is false."""
    return torch.where(available, losses, 0).mean(0)
