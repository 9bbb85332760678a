"""Metrics from every sample's logits: those of a task, and those that a dataset asks for by name (`DataSpec.metrics`).

Counts that add up do not suffice for them: they need the order of the scores. So the logits of a whole pass are
gathered, and each combination is measured on the samples that have it, as with the other metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mmrobust.tasks import presentation_attack

THRESHOLD = "threshold_"  # of a family: the array's name in the predictions, the buffer's in a method
Values = dict[str, float | None]


@dataclass(frozen=True)
class Family:
    """Metrics that are computed together.

    `measure(logits (N, C), target (N,), threshold)` gives all of `metrics`; `threshold(logits, target)` is what the
    validation split fixes for the test, None if it cannot; None itself if nothing is to be fixed.
    """

    metrics: tuple[str, ...]
    classes: int | None  # the number it is made for; None: any
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
    """`map`: average precision, the mean over the labels that some sample has; None if none has any.

    Average precision is the sum over the scores that occur of (the recall gained) x (precision there): the area under
    the precision-recall curve without interpolation.

    Args:
        logits: (N, C).
        target: (N, C), 0 or 1.
    """
    columns = zip(logits.T, target.T, strict=True)
    values = [average_precision(score, labels.astype(bool)) for score, labels in columns if labels.any()]
    return {"map": float(np.mean(values)) if values else None}


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Of one label: scores (N,), of which equal ones are one step of the curve, and who has it, (N,) bool."""
    _, step = np.unique(-score, return_inverse=True)  # from the highest score on
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
    """Metrics of the K combinations and, last, of each sample as available; and the thresholds this split would fix.

    Args:
        families: by name.
        predictions: `logits` (N, K, C) and `target` (N,).
        has: (K, N) bool, whether a sample has the whole combination.
        exact: (K, N) bool, whether it has nothing else.
        thresholds: of each family (K + 1,) float64, nan where validation fixed none; may lack a family.

    Returns:
        K + 1 dictionaries, and of each family (K + 1,) float64.
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
