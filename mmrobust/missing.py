"""Protocols of missing modalities, as pure functions of a seed and a sample.

A protocol decides once for a split which modalities each sample lacks; every method, worker and rank sees the same
ones. Modality dropout in training is another thing: `combinations.draw_combinations` draws anew in every epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmrobust import keyed
from mmrobust.combinations import all_combinations, combination_masks
from mmrobust.files import short_hash


@dataclass(frozen=True)
class Complete:
    """Nothing is missing."""

    def probabilities(self, combinations: Sequence[Sequence[str]]) -> np.ndarray:
        """Probability of every combination, (K,)."""
        return np.array([float(k == len(combinations) - 1) for k in range(len(combinations))])

    def check(self, modalities: Sequence[str]) -> list[str]:
        """Problems of this protocol with these modalities, one message each; empty if there are none."""
        return []


@dataclass(frozen=True)
class Uniform(Complete):
    """Every non-empty combination is equally likely."""

    def probabilities(self, combinations: Sequence[Sequence[str]]) -> np.ndarray:
        return np.full(len(combinations), 1 / len(combinations))


@dataclass(frozen=True)
class MCAR(Complete):
    """Missing completely at random: modality m is absent with probability `rate` (or `rate[m]`).

    A sample that would lose everything is drawn again, so that the realised rate is a little lower:
    (r_m - p) / (1 - p) with p the product of all rates.
    """

    rate: float | Mapping[str, float]

    def _rate(self, modality: str) -> float:
        return float(self.rate.get(modality, 0.0) if isinstance(self.rate, Mapping) else self.rate)

    def probabilities(self, combinations: Sequence[Sequence[str]]) -> np.ndarray:
        modalities = combinations[-1]
        weights = [
            np.prod([1 - self._rate(m) if m in c else self._rate(m) for m in modalities])
            for c in combinations
        ]
        return np.array(weights) / np.sum(weights)

    def check(self, modalities: Sequence[str]) -> list[str]:
        rates = self.rate if isinstance(self.rate, Mapping) else {"rate": self.rate}
        problems = [
            f"rate {name}={rate} is not in [0, 1]" for name, rate in rates.items() if not 0 <= rate <= 1
        ]
        if isinstance(self.rate, Mapping):
            unknown = [m for m in rates if m not in modalities]
            problems += [f"rate of {m!r}, but the modalities are {', '.join(modalities)}" for m in unknown]
        if not problems and all(self._rate(m) == 1 for m in modalities):
            problems.append("every modality has rate 1, so nothing would be left of any sample")
        return problems


@dataclass(frozen=True)
class Fixed(Complete):
    """Every sample has exactly these modalities."""

    combination: Sequence[str]

    def probabilities(self, combinations: Sequence[Sequence[str]]) -> np.ndarray:
        return np.array([float(set(c) == set(self.combination)) for c in combinations])

    def check(self, modalities: Sequence[str]) -> list[str]:
        if not self.combination:
            return ["combination is empty: name at least one modality"]
        unknown = [m for m in self.combination if m not in modalities]
        return [f"combination names {m!r}, but the modalities are {', '.join(modalities)}" for m in unknown]


def masks(
    protocol: Complete,
    modalities: Sequence[str],
    seed: int,
    split: str,
    present: np.ndarray,
) -> np.ndarray:
    """Which modalities of every sample of a split are available: (N, M) bool.

    Args:
        protocol: how modalities go missing.
        modalities: their names, M.
        seed: `missing.seed`.
        split: name of the split, so that two splits never share a pattern.
        present: (N, M) bool, which modalities lie on disk. A sample that the protocol would leave without any keeps
            all that it has on disk.
    """
    combinations = all_combinations(modalities)
    edges = np.cumsum(protocol.probabilities(combinations))
    draws = keyed.uniform(np.arange(len(present), dtype=np.int64), seed, "missing", split)
    choice = np.minimum(np.searchsorted(edges, draws * edges[-1], side="right"), len(combinations) - 1)
    kept = combination_masks(combinations, modalities).numpy()[choice] & present
    return np.where(kept.any(1, keepdims=True), kept, present)


def fingerprint(masks: np.ndarray) -> str:
    """A short hash of masks: two runs with the same masks have the same fingerprint."""
    return short_hash(np.packbits(masks).tobytes() + str(masks.shape).encode())
