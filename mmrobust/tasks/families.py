"""Metrics that need every sample's logits: those of a task, and those that `DataSpec.metrics` requests by name.

These metrics depend on the order of the scores, for which additive counts do not suffice. The logits of a whole pass
are therefore gathered. Each combination is measured on the samples that have it, as with the other metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mmrobust.tasks import presentation_attack

# Prefix of a family's threshold: of the array in `predictions.npz` and of the method's buffer.
THRESHOLD = "threshold_"
Values = dict[str, float | None]


@dataclass(frozen=True)
class Family:
    """Metrics that are computed together.

    Attributes:
        metrics: their names.
        classes: the required number of classes; None: any.
        measure: (logits (N, C), target (N,), threshold) -> the values of all `metrics`.
        threshold: (logits, target) -> the threshold that the validation split fixes for the test, None if undefined;
            the attribute is None if the family has no threshold.
    """

    metrics: tuple[str, ...]
    classes: int | None
    measure: Callable[[np.ndarray, np.ndarray, float | None], Values]
    threshold: Callable[[np.ndarray, np.ndarray], float | None] | None = None


FAMILIES = {
    "presentation_attack": Family(
        presentation_attack.METRICS,
        presentation_attack.CLASSES,
        presentation_attack.presentation_attack_metrics,
        presentation_attack.equal_error_threshold,
    )
}


def ranking_metrics(logits: np.ndarray, target: np.ndarray, threshold: float | None) -> Values:
    """Mean average precision, `map`, over the labels that at least one sample has; None if there are none.

    Average precision is the sum of (gain in recall) x (precision) over all distinct scores, i.e. the area under the
    precision-recall curve without interpolation.

    Args:
        logits: (N, C).
        target: (N, C), 0 or 1.
        threshold: unused.
    """
    columns = zip(logits.T, target.T, strict=True)
    values = [average_precision(score, labels.astype(bool)) for score, labels in columns if labels.any()]
    return {"map": float(np.mean(values)) if values else None}


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Average precision of one label from scores (N,) and the samples that have it, (N,) bool. Equal scores form one
    step of the curve."""
    _, step = np.unique(-score, return_inverse=True)  # the highest score first
    found = np.cumsum(np.bincount(step, positive))
    taken = np.cumsum(np.bincount(step))
    return float((np.diff(found, prepend=0) * found / taken).sum() / found[-1])


RANKING = Family(("map",), None, ranking_metrics)


def measure_families(
    families: Mapping[str, Family],
    predictions: Mapping[str, np.ndarray],
    has: np.ndarray,
    exact: np.ndarray,
    thresholds: Mapping[str, np.ndarray],
) -> tuple[list[Values], dict[str, np.ndarray]]:
    """Measure the K combinations and, in the last row, each sample as available; find this split's thresholds.

    Args:
        families: families by name.
        predictions: `logits` (N, K, C) and `target` (N,).
        has: (K, N) bool, whether a sample has the whole combination.
        exact: (K, N) bool, whether a sample has exactly this combination.
        thresholds: thresholds to use, (K + 1,) float64 per family, nan where validation fixed none; a family may be
            missing.

    Returns:
        The metrics of the K + 1 rows, and the thresholds found, (K + 1,) float64 per family.
    """
    logits, target = predictions["logits"], predictions["target"]
    count = len(has)
    available, single = exact.any(0), exact.argmax(0)
    parts = [(logits[rows, k], target[rows]) for k, rows in enumerate(has)]
    parts.append((logits[np.arange(len(target)), single][available], target[available]))
    values: list[Values] = [{} for _ in parts]
    fixed: dict[str, np.ndarray] = {}
    for name, family in families.items():
        given = thresholds.get(name, np.full(count + 1, np.nan))
        if family.threshold:
            found = [family.threshold(*part) for part in parts]
            fixed[name] = np.array([np.nan if x is None else x for x in found], dtype=np.float64)
        for row, part, threshold in zip(values, parts, given.tolist(), strict=True):
            row |= family.measure(*part, None if np.isnan(threshold) else threshold)
    return values, fixed
