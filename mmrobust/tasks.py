"""The tasks: what a head looks like, what a sample's loss is."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmrobust.data.base import DataSpec
from mmrobust.errors import UserError
from mmrobust.evaluation.families import FAMILIES
from mmrobust.models.encoders import PointwiseLinear


class Classification:
    """One label for a sample. Logits (B, C), targets (B,)."""

    def __init__(self, spec: DataSpec) -> None:
        self.num_classes = spec.num_classes
        self.ignore_index = spec.ignore_index
        self.metrics = checked_families(spec)
        self.primary = spec.primary or "accuracy"

    def pool(self, features: Tensor) -> Tensor:
        """What of an encoder's features the fusion sees: the mean over all places, (B, D)."""
        return features.flatten(2).mean(2) if features.dim() > 2 else features

    def head(self, width: int) -> nn.Module:
        return nn.Linear(width, self.num_classes)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of every sample, (B,)."""
        return F.cross_entropy(logits, target, reduction="none")


class Segmentation:
    """One label for a pixel. Logits (B, C, H, W), targets (B, H, W) with `ignore_index` where void."""

    primary = "miou"
    metrics: tuple[str, ...] = ()

    def __init__(self, spec: DataSpec) -> None:
        self.num_classes = spec.num_classes
        self.ignore_index = spec.ignore_index
        self.size = next(iter(spec.modalities.values())).shape[-2:]

    def pool(self, features: Tensor) -> Tensor:
        """Segmentation fuses maps as they are."""
        return features

    def head(self, width: int) -> nn.Module:
        return SegmentationHead(width, self.num_classes, tuple(self.size))

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of every sample, the mean over its labelled pixels (0 if all are void), (B,)."""
        pixels = F.cross_entropy(logits, target, ignore_index=self.ignore_index, reduction="none").flatten(1)
        valid = (target != self.ignore_index).flatten(1).sum(1)
        return pixels.sum(1) / valid.clamp(min=1)


class SegmentationHead(nn.Module):
    """Class scores at every place of a map, resized to the labels' size."""

    def __init__(self, width: int, num_classes: int, size: tuple[int, ...]) -> None:
        super().__init__()
        self.classifier = PointwiseLinear(width, num_classes)
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        return F.interpolate(self.classifier(features), size=self.size, mode="bilinear", align_corners=False)


def checked_families(spec: DataSpec) -> tuple[str, ...]:
    """The families of metrics that a dataset asks for.

    Raises:
        UserError: one is not known or made for another number of classes, or no metric is called as the primary one.
    """
    known = ["accuracy", "macro_f1", "ece"]
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
    return spec.metrics


Task = Classification | Segmentation

TASKS: dict[str, type[Task]] = {"classification": Classification, "segmentation": Segmentation}
