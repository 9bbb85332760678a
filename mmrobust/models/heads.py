"""What heads predict."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Prediction(NamedTuple):
    """Logits at full resolution, and what a decoder in training predicts on its way up."""

    logits: Tensor  # (B, C) or (B, C, H, W)
    side: tuple[Tensor, ...] = ()  # (B, C, h, w), coarse to fine


class LinearHead(nn.Linear):
    """One linear map of a feature (B, D) to logits (B, C)."""

    def forward(self, x: Tensor) -> Prediction:  # type: ignore[override]
        return Prediction(super().forward(x))
