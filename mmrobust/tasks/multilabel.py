"""Multilabel classification: any number of labels per sample."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrobust.data.spec import DataSpec
from mmrobust.tasks.base import Counts, Predicted, Task, full_logits
from mmrobust.tasks.families import RANKING


class Multilabel(Task):
    """Each of C labels is present or not. Logits are (B, C); targets and predictions are (B, C) int64, 0 or 1."""

    metrics: ClassVar[tuple[str, ...]] = ("macro_f1",)
    primary = "macro_f1"

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.families = {"ranking": RANKING}

    def loss(self, prediction: Tensor | Predicted, target: Tensor) -> Tensor:
        """Binary cross-entropy of every sample, the mean over the labels, (B,)."""
        logits = full_logits(prediction)
        return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none").mean(1)

    def predict(self, logits: Tensor, target: Tensor, label_size: Tensor | None) -> Tensor:
        """The labels (K, B, C) with a probability above 1/2, from logits (K, B, C)."""
        return (logits > 0).long()

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().sigmoid()

    def pairs(self, logits: Tensor, target: Tensor, label_size: Tensor | None) -> tuple[Tensor, Tensor]:
        """Probabilities (N, C) and labels (N, C)."""
        return logits.float().sigmoid(), target

    def zeros(self, rows: int) -> Counts:
        """`hits` (rows, C, 3) int64: true positives, false positives, false negatives."""
        return {"hits": torch.zeros(rows, self.num_classes, 3, dtype=torch.int64)}

    def count(self, logits: Tensor, predicted: Tensor, target: Tensor, counted: Tensor) -> Counts:
        p, t = predicted.bool(), target.bool().expand_as(predicted)
        kinds = torch.stack([p & t, p & ~t, ~p & t], -1)
        return {"hits": (kinds & counted[..., None, None]).sum(1)}

    def measure(self, counts: Counts) -> dict[str, Tensor]:
        """F1, averaged over the labels that occur in truth or prediction; nan if there are none."""
        right, wrong, missed = counts["hits"].double().unbind(-1)
        denominator = 2 * right + wrong + missed
        occurs = denominator > 0
        f1 = torch.where(occurs, 2 * right / denominator.clamp(min=1), 0)
        return {"macro_f1": f1.sum(1) / occurs.sum(1)}

    def example(self, size: int, generator: torch.Generator) -> Tensor:
        return torch.randint(2, (size, self.num_classes), generator=generator)

    def check_target(self, target: Tensor) -> None:
        assert target.dtype == torch.int64, f"targets are {target.dtype}, not int64"
        assert target.shape == (self.num_classes,), f"targets have shape {tuple(target.shape)}"
        assert bool(((target == 0) | (target == 1)).all()), "targets are not 0 or 1"
