"""Metrics of face anti-spoofing, live (class 1, bona fide) against attack (class 0), after ISO/IEC 30107-3.

A sample's score is its logit of class 1 minus its logit of class 0. A score above the threshold classifies the sample
as live. APCER is the share of attacks classified as live (FAR), BPCER the share of live samples classified as attacks
(FRR); ACER is their mean. Threshold 0 equals the argmax, which the released codes of MMANet and DMRNet use (they swap
the names of the two errors). The standard takes the worst APCER over the kinds of attack; here all attacks are pooled,
because the lists of most datasets do not name the kinds.
"""

from __future__ import annotations

import numpy as np

ARGMAX = 0.0  # the threshold that equals the argmax
RATES = (1e-2, 1e-3, 1e-4)  # bounds of FAR at which the TPR is reported
CLASSES = 2
TPR = tuple(f"tpr_at_fpr_1e-{i}" for i in (2, 3, 4))
METRICS = ("acer", "apcer", "bpcer", "hter", "eer", *TPR)


def presentation_attack_metrics(
    logits: np.ndarray, target: np.ndarray, threshold: float | None
) -> dict[str, float | None]:
    """Compute all of METRICS; all are None if one of the two classes has no sample.

    `hter` is the mean of both errors at `threshold`; without a threshold it is taken at the argmax and equals the
    ACER. `eer` is the mean of both errors where they are closest. `tpr_at_fpr_1e-2` is the largest share of live
    samples recognised at a threshold that classifies at most 1 % of the attacks as live.

    Args:
        logits: (N, 2).
        target: (N,), 1 is live.
        threshold: the result of `equal_error_threshold` on the validation split.
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
    """The smallest threshold at which APCER and BPCER are closest; None if a class has no sample.

    Args:
        logits: (N, 2).
        target: (N,), 1 is live.
    """
    score, live = scores(logits), target == 1
    if live.all() or not live.any():
        return None
    points = operating_points(score)
    fars, frrs = errors(score, live, points)
    return float(points[int(np.abs(fars - frrs).argmin())])


def scores(logits: np.ndarray) -> np.ndarray:
    """The scores of samples, (N,) float64; a larger score means live."""
    return logits[:, 1].astype(np.float64) - logits[:, 0]


def operating_points(score: np.ndarray) -> np.ndarray:
    """One threshold for every distinct split of the samples: below all scores, between neighbours, at the largest."""
    values = np.unique(score)
    return np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1]]])


def errors(score: np.ndarray, live: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FAR and FRR at each threshold: the share of attacks above it, and the share of live samples not above it."""
    attacks, genuine = np.sort(score[~live]), np.sort(score[live])
    below = np.searchsorted(attacks, thresholds, side="right")
    return 1 - below / len(attacks), np.searchsorted(genuine, thresholds, side="right") / len(genuine)
