"""One-stage modality distillation's claims, on data where the privileged modality says what m1 shows.

m1 has twelve patterns a class, some five samples of each; where it shows a decoy's, its label is wrong.
m2 has one pattern a class and, disturbed in common, shows the same decoy: in training it tells what m1 shows.

Whether one stage beats several is experiment O's, see .github/results.md.
"""

from __future__ import annotations

import functools

import pytest
import torch

from mmrobust.data.base import DataModule
from mmrobust.losses import maximum_mean_discrepancy
from mmrobust.methods.base import Method
from tests.claims.training import accuracies, train

pytestmark = pytest.mark.long

SEEDS = (0, 1, 2)
ALL = list(range(8))
DATA = [
    f"data.groups=[{ALL},{ALL}]",
    "data.kinds=vector",
    "data.size=64",
    "data.variants=[12,1]",
    "data.clarity=[0.6,0.6]",
    "data.shared=1.0",
    "data.num_train=512",
    "data.num_val=32",
    "encoder.width=32",
    "schedule=constant",
]
OSMD = ("method=osmd", "method.privileged=[m2]")
ALONE = ("method=fusion", "missing=fixed", "missing.train.combination=[m1]")
NO_ADAPTATION = ("method.alpha=0", "method.beta=0")


@functools.cache
def trained(seed: int, *overrides: str) -> tuple[Method, DataModule]:
    return train(*DATA, *overrides, f"seed={seed}")


def accuracy(*overrides: str) -> float:
    """With m1 alone, the mean over the seeds."""
    return sum(accuracies(*trained(seed, *overrides))["m1"] for seed in SEEDS) / len(SEEDS)


def discrepancy(seed: int, *overrides: str) -> float:
    """Between restored and real features of m2, on the test split."""
    method, data = trained(seed, *overrides)
    found = []
    with torch.no_grad():
        for batch in data.loader("test"):
            features = method.encode(batch)
            found.append(maximum_mean_discrepancy(features["m1"]["restored"]["m2"], features["m2"]["own"]))
    return torch.stack(found).mean().item()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_restored_feature_moves_towards_the_privileged_one(seed: int) -> None:
    assert discrepancy(seed, *OSMD) < 0.5 * discrepancy(seed, *OSMD, *NO_ADAPTATION)


def test_beats_a_network_of_the_available_modality() -> None:
    """Without the adaptation (the mutation) the privileged modality has no say, and it does not."""
    alone = accuracy(*ALONE)
    assert accuracy(*OSMD) > alone + 0.015
    assert accuracy(*OSMD, *NO_ADAPTATION) < alone + 0.015


def test_cross_translation_beats_plain_concatenation() -> None:
    assert accuracy(*OSMD) > accuracy(*OSMD, "method.aggregation=concat") + 0.02
