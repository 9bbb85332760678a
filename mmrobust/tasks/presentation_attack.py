"""Metrics of face anti-spoofing: is this face live (class 1, bona fide) or an attack (class 0)? After ISO/IEC 30107-3.

A sample's score is its logit of class 1 minus that of class 0; it is taken for live if the score is above a threshold.
APCER is the share of attacks taken for live (FAR), BPCER that of live samples taken for attacks (FRR); ACER is their
mean. At threshold 0 that is the argmax, as the released codes of MMANet and DMRNet have it (which call the two errors
by each other's names). The attacks are pooled: the lists of most datasets do not name their kinds, over which the
standard takes the worst APCER.
"""

from __future__ import annotations

import numpy as np

ARGMAX = 0.0  # the threshold that agrees with it
RATES = (1e-2, 1e-3, 1e-4)  # of attacks taken for live
CLASSES = 2
TPR = tuple(f"tpr_at_fpr_1e-{i}" for i in (2, 3, 4))
METRICS = ("acer", "apcer", "bpcer", "hter", "eer", *TPR)


def presentation_attack_metrics(
    logits: np.ndarray, target: np.ndarray, threshold: float | None
) -> dict[str, float | None]:
    """All of METRICS; None where one of the two classes has no sample.

    `hter` is the mean of both errors at the threshold; without one, at the argmax, where it is the ACER. `eer` is
    their mean where they are closest, and `tpr_at_fpr_1e-2` the largest share of live samples recognised at a
    threshold at which at most 1 % of the attacks are taken for live.

    Args:
        logits: (N, 2).
        target: (N,), 1 is live.
        threshold: what `equal_error_threshold` gave on the validation split.
    """
    score, live = scores(logits), target == 1
    if live.all() or not live.any():
        return dict.fromkeys(METRICS)
    apcer, bpcer = errors(score, live, np.array([ARGMAX]))
    far, frr = errors(score, live, np.array([ARGMAX if threshold is None else threshold]))
    fars, frrs = errors(score, live, operating_points(score))
    equal = int(np.abs(fars - frrs).argmin())
    values = [(apcer + bpcer)[0] / 2, apcer[0], bpcer[0], (far + frr)[0] / 2, (fars + frrs)[equal] / 2]
    values += [1 - frrs[fars <= rate].min() for rate in RATES]
    return dict(zip(METRICS, map(float, values), strict=True))


def equal_error_threshold(logits: np.ndarray, target: np.ndarray) -> float | None:
    """Where APCER and BPCER are closest (the smallest such threshold); None where a class has no sample.

    Args:
        logits: (N, 2), target: (N,).
    """
    score, live = scores(logits), target == 1
    if live.all() or not live.any():
        return None
    points = operating_points(score)
    fars, frrs = errors(score, live, points)
    return float(points[int(np.abs(fars - frrs).argmin())])


def scores(logits: np.ndarray) -> np.ndarray:
    """How live, (N,) float64."""
    return logits[:, 1].astype(np.float64) - logits[:, 0]


def operating_points(score: np.ndarray) -> np.ndarray:
    """A threshold for every way to part the samples: below all, between any two scores that differ, above all."""
    values = np.unique(score)
    return np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1]]])


def errors(score: np.ndarray, live: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At each threshold, the share of attacks above it and that of live samples not above it."""
    attacks, genuine = np.sort(score[~live]), np.sort(score[live])
    below = np.searchsorted(attacks, thresholds, side="right")
    return 1 - below / len(attacks), np.searchsorted(genuine, thresholds, side="right") / len(genuine)
