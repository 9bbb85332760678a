"""Combinations of modalities: their names, masks and codes, and how one is drawn per sample."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations as itertools_combinations

import numpy as np
import torch
from torch import Tensor

from mmrobust import keyed


def all_combinations(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """The 2^M - 1 non-empty combinations, small ones first, each in the order of the modalities."""
    sizes = range(1, len(modalities) + 1)
    return [c for size in sizes for c in itertools_combinations(modalities, size)]


def sample_combinations(modalities: Sequence[str], count: int | None) -> list[tuple[str, ...]]:
    """Choose `count` of the non-empty combinations, or all of them for None; they keep their order.

    Single modalities, combinations that lack one modality, and the full one come first; the others are drawn uniformly.
    The choice is the same in all runs, and a larger sample contains every smaller one.
    """
    combinations, most = all_combinations(modalities), len(modalities)
    if count is None or count >= len(combinations):
        return combinations
    draws = keyed.uniform(np.arange(len(combinations), dtype=np.int64), most, "combinations")
    first = np.array([len(c) in (1, most - 1, most) for c in combinations])
    chosen = np.lexsort((draws, ~first))[:count]
    return [combinations[i] for i in sorted(chosen)]


def combination_name(combination: Sequence[str]) -> str:
    """The modalities joined by a plus: `audio+visual`."""
    return "+".join(combination)


def combination_masks(combinations: Sequence[Sequence[str]], modalities: Sequence[str]) -> Tensor:
    """The combinations as rows of a bool tensor (K, M)."""
    return torch.tensor([[m in c for m in modalities] for c in combinations], dtype=torch.bool)


def combination_code(available: Tensor) -> Tensor:
    """Rows of (B, M) as integers in [0, 2^M): bit m is modality m."""
    powers = 2 ** torch.arange(available.shape[1], device=available.device)
    return (available.long() * powers).sum(1)


def draw_combinations(available: Tensor, index: Tensor, *salts: int | str) -> Tensor:
    """Draw one non-empty combination per sample, uniformly among those that `available` allows.

    Args:
        available: (B, M) bool, at least one modality in every row.
        index: (B,) int64 keys of the samples.
        salts: seed, name of the stream, epoch.

    Returns:
        (B, M) bool, a subset of `available`, on its device.

    Source: "uniform combinations" of MMANet and DMRNet's released code (not independent Bernoulli draws).
    """
    count = available.sum(1)
    choices = (2**count - 1).to(torch.float64)
    # in 1 ... 2^count - 1, so that no row is empty
    code = (keyed.uniform(index, *salts) * choices).long() + 1
    # each modality's position among the available ones of its row
    rank = available.long().cumsum(1) - 1
    return available & ((code[:, None] >> rank.clamp(min=0)) & 1).bool()
