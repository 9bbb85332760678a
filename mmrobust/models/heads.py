"""Predictions, and the linear head of classifiers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Prediction(NamedTuple):
    """Logits at full resolution and, from a decoder in training, at the coarser resolutions."""

    logits: Tensor  # (B, C) or (B, C, H, W)
    side: tuple[Tensor, ...] = ()  # (B, C, h, w), coarse to fine


class LinearHead(nn.Linear):
    """A linear map from features (B, D) to logits (B, C)."""

    def forward(self, x: Tensor) -> Prediction:  # type: ignore[override]
        return Prediction(super().forward(x))
