"""Classification: one class per sample."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrobust.data.spec import DataSpec
from mmrobust.errors import UserError
from mmrobust.tasks.base import Counts, Predicted, Task, full_logits
from mmrobust.tasks.counts import calibration_counts, classification_metrics, confusion_counts
from mmrobust.tasks.families import FAMILIES, Family


class Classification(Task):
    """One class per sample. Logits are (B, C), targets (B,)."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "ece")

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.families = checked_families(spec)
        self.primary = spec.primary or "accuracy"

    def loss(self, prediction: Tensor | Predicted, target: Tensor) -> Tensor:
        """Cross-entropy of every sample, (B,)."""
        return F.cross_entropy(full_logits(prediction), target, reduction="none")

    def predict(self, logits: Tensor, target: Tensor, label_size: Tensor | None) -> Tensor:
        """The classes (K, B) with the largest logits (K, B, C)."""
        return logits.argmax(2)

    def certainty(self, logits: Tensor) -> Tensor:
        return logits.float().softmax(2).amax(2)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().softmax(1)

    def pairs(self, logits: Tensor, target: Tensor, label_size: Tensor | None) -> tuple[Tensor, Tensor]:
        """Probabilities (N, C) and classes (N,)."""
        valid = target != self.ignore_index
        return logits[valid].float().softmax(1), target[valid]

    def zeros(self, rows: int) -> Counts:
        """`confusion` (rows, C, C) int64 and `calibration` (rows, BINS, 3) float64."""
        nobody = torch.zeros(rows, 0, dtype=torch.bool)
        return {
            "confusion": torch.zeros(rows, self.num_classes, self.num_classes, dtype=torch.int64),
            "calibration": calibration_counts(
                torch.zeros(rows, 0, self.num_classes), torch.zeros(rows, 0), nobody
            ),
        }

    def count(self, logits: Tensor, predicted: Tensor, target: Tensor, counted: Tensor) -> Counts:
        valid = target != self.ignore_index
        classes = torch.where(valid, target, 0).expand_as(predicted)
        counted = counted & valid
        return {
            "confusion": confusion_counts(predicted, classes, counted, self.num_classes),
            "calibration": calibration_counts(logits, classes, counted),
        }

    def measure(self, counts: Counts) -> dict[str, Tensor]:
        return classification_metrics(counts["confusion"], counts["calibration"])


def checked_families(spec: DataSpec) -> dict[str, Family]:
    """The metric families that a dataset requests.

    Raises:
        UserError: a family is unknown or requires another number of classes, or the primary metric is unknown.
    """
    known = list(Classification.metrics)
    for name in spec.metrics:
        if name not in FAMILIES:
            raise UserError(f"the dataset asks for metrics {name!r}; known are {', '.join(FAMILIES)}")
        if spec.num_classes != FAMILIES[name].classes:
            raise UserError(
                f"the metrics {name!r} are made for {FAMILIES[name].classes} classes; the dataset has {spec.num_classes}"
            )
        known += FAMILIES[name].metrics
    if spec.primary and spec.primary not in known:
        raise UserError(f"the primary metric {spec.primary!r} is none of this dataset's: {', '.join(known)}")
    return {name: FAMILIES[name] for name in spec.metrics}
