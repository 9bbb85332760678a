"""Claims on rendered scenes, where it is known which modality tells which classes apart."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from mmrobust.evaluation.combinations import Results
from tests.claims.training import evaluate, train

pytestmark = pytest.mark.long

SEEDS = (0, 1, 2)
SCENES = (
    "data.task=segmentation",
    "data.num_classes=5",  # the wall, red and green, bump and dent
    "data.size=11",
    "data.num_train=512",
    "data.num_val=32",
    "data.num_test=128",
    "data.batch_size=16",
    "optimizer.lr=1e-2",
)
COLOUR, RELIEF = [1, 3], [2, 4]  # the classes that rgb alone tells apart, and those that depth does


@cache
def scored(method: str, seed: int) -> Results:
    fitted, data = train(f"method={method}", f"seed={seed}", "trainer.max_epochs=12", *SCENES)
    return evaluate(fitted, data)


def iou(results: Results, combination: str, classes: list[int]) -> float:
    """Mean over some classes."""
    confusion = results.confusion[combination].double()
    hits = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - hits
    return float((hits / union.clamp(min=1))[classes].mean())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("lacking", "classes"), [("rgb", RELIEF), ("depth", COLOUR)])
def test_classes_collapse_without_the_modality_that_tells_them_apart(
    lacking: str, classes: list[int], seed: int
) -> None:
    """`lacking` is all that is left. Two classes that look alike have an IoU of a third at best."""
    results = scored("fusion", seed)
    full = iou(results, "rgb+depth", classes)
    assert full > 0.6
    assert iou(results, lacking, classes) < min(0.37, 0.5 * full)


@pytest.mark.parametrize("method", ["dropout", "dmrnet"])
def test_robust_methods_exceed_plain_fusion_over_combinations(method: str) -> None:
    def average(name: str, seed: int) -> float:
        found = scored(name, seed).aggregates["average"]["miou"]
        assert found is not None
        return found

    gains = torch.tensor([average(method, seed) - average("fusion", seed) for seed in SEEDS])
    assert gains.min() > 0
    assert gains.mean() > 0.03, gains
