"""The targets of the synthetic data, task by task, and the best score that anybody could reach on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def digits(count: int) -> np.ndarray:
    """The binary digits of 0 to count - 1, the lowest first: (count, digits) int64."""
    return np.arange(count)[:, None] >> np.arange(max((count - 1).bit_length(), 1)) & 1


# Task -> the targets of the C classes.
TARGETS: dict[str, Callable[[int], np.ndarray]] = {
    "classification": np.arange,
    "regression": lambda count: np.arange(count, dtype=np.float32)[:, None],
    "multilabel": digits,
}

# Task -> what its outputs are called; none: as classes are.
NAMES: dict[str, Callable[[int], tuple[str, ...]]] = {
    "classification": lambda count: (),
    "regression": lambda count: ("number",),
    "multilabel": lambda count: tuple(f"digit {i}" for i in range(digits(count).shape[1])),
}


def best_accuracy(joint: np.ndarray, targets: np.ndarray) -> float:
    """Of P(class, what is shown), (C, S): the most probable class is named."""
    return float(joint.max(0).sum())


def best_absolute_error(joint: np.ndarray, targets: np.ndarray) -> float:
    """The median is named, which is one of the targets (C, 1)."""
    return float((np.abs(targets - targets.T) @ joint).min(0).sum())


def best_average_precision(joint: np.ndarray, targets: np.ndarray) -> float:
    """Samples are ranked by the probability of each label, of targets (C, labels)."""
    possible = joint.sum(0) > 0
    mass, values = joint.sum(0)[possible], []
    for share in (targets.T @ joint)[:, possible] / mass:  # of what is shown, with the label
        # Equal probabilities are one step of the curve, whatever rounding says.
        _, step = np.unique(-share.round(9), return_inverse=True)
        found, taken = (np.cumsum(np.bincount(step, x)) for x in (share * mass, mass))
        values.append((np.diff(found, prepend=0) * found / taken).sum() / found[-1])
    return float(np.mean(values))


# Task -> the best possible score of its targets.
BEST: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "classification": best_accuracy,
    "regression": best_absolute_error,
    "multilabel": best_average_precision,
}
