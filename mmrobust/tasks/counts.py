"""Counts that add up over batches and ranks, and the metrics that follow from them.

The first axis of every count is the combination, K, so that all combinations are counted at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Number of confidence bins of the expected calibration error.
BINS = 15


def confusion_counts(predicted: Tensor, target: Tensor, counted: Tensor, num_classes: int) -> Tensor:
    """Confusion matrices (K, C, C), rows true and columns predicted, int64.

    Args:
        predicted: predicted classes, (K, ...).
        target: true classes, of the same shape.
        counted: bool, of the same shape; only true entries are counted.
        num_classes: C.
    """
    k = len(predicted)
    offset = torch.arange(k, device=predicted.device).reshape(-1, *[1] * (predicted.dim() - 1))
    cell = (offset * num_classes + target) * num_classes + predicted
    size = k * num_classes**2
    # An extra cell collects the entries that do not count, which avoids copying a selection.
    cell = torch.where(counted, cell, size)
    return torch.bincount(cell.flatten(), minlength=size + 1)[:size].reshape(k, num_classes, num_classes)


def calibration_counts(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Number of samples, sum of confidences and number correct in each confidence bin, (K, BINS, 3) float64.

    Args:
        logits: (K, B, C).
        target: (K, B).
        counted: (K, B) bool.
    """
    confidence, predicted = logits.float().softmax(-1).max(-1)
    k = len(logits)
    index = (confidence * BINS).ceil().long().clamp(1, BINS) - 1  # bins (0, 1/15], (1/15, 2/15], ...
    index = index + torch.arange(k, device=logits.device)[:, None] * BINS
    values = torch.stack([torch.ones_like(confidence), confidence, (predicted == target).float()], -1)
    values = torch.where(counted[..., None], values, 0).double().flatten(0, 1)
    counts = torch.zeros(k * BINS, 3, dtype=torch.float64, device=logits.device)
    return counts.index_add_(0, index.flatten(), values).reshape(k, BINS, 3)


def classification_metrics(confusion: Tensor, calibration: Tensor) -> dict[str, Tensor]:
    """Accuracy, macro-F1 over the classes that occur, and expected calibration error, each (K,); nan if n = 0.

    ECE: Guo et al., ICML 2017, arXiv 1706.04599, eq. 3, with 15 bins.
    """
    counts = confusion.double()
    total = counts.sum((1, 2))
    hits = counts.diagonal(dim1=1, dim2=2)
    denominator = counts.sum(1) + counts.sum(2)
    occurs = denominator > 0
    f1 = torch.where(occurs, 2 * hits / denominator.clamp(min=1), 0)
    gap = (calibration[..., 2] - calibration[..., 1]).abs().sum(1)
    nan = torch.full_like(total, torch.nan)
    return {
        "accuracy": torch.where(total > 0, hits.sum(1) / total, nan),
        "macro_f1": torch.where(total > 0, f1.sum(1) / occurs.sum(1), nan),
        "ece": torch.where(total > 0, gap / total, nan),
    }


def segmentation_metrics(confusion: Tensor) -> dict[str, Tensor]:
    """Mean IoU over the classes that occur in truth or prediction, pixel accuracy, and class accuracy averaged over the
    classes that occur in truth, each (K,)."""
    counts = confusion.double()
    total = counts.sum((1, 2))
    hits = counts.diagonal(dim1=1, dim2=2)
    truth, union = counts.sum(2), counts.sum(1) + counts.sum(2) - hits
    iou = torch.where(union > 0, hits / union.clamp(min=1), 0).sum(1) / (union > 0).sum(1)
    recall = torch.where(truth > 0, hits / truth.clamp(min=1), 0).sum(1) / (truth > 0).sum(1)
    nan = torch.full_like(total, torch.nan)
    return {
        "miou": torch.where(total > 0, iou, nan),
        "pixel_accuracy": torch.where(total > 0, hits.sum(1) / total, nan),
        "mean_accuracy": torch.where(total > 0, recall, nan),
    }
