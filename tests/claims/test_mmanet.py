"""MMANet's claims on generated data: it mines what carries least, its regularisation raises that, and its distillation
looks at what its teacher is unsure of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional import spearman_corrcoef

from mmrobust.losses import margin_aware_distillation, margin_weights
from mmrobust.methods.mmanet import MMANet
from tests.claims.training import accuracies, train

pytestmark = pytest.mark.slow

COARSE, FINE = (
    [0, 0, 0, 0, 0, 0, 1, 1],
    [0, 1, 2, 3, 4, 5, 6, 7],
)  # what a modality can tell apart of 8 classes
SMALL = ["method=mmanet", "data.num_train=1024", "method.warm_up=3", "method.mining_epochs=2"]


def mined(seed: int, *overrides: str) -> list[str]:
    method, _ = train(*SMALL, f"seed={seed}", "trainer.max_epochs=3", *overrides)
    assert isinstance(method, MMANet)
    return method.mining.weak_names


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("weakest", [0, 1])
def test_the_modality_that_tells_least_apart_is_mined(weakest: int, seed: int) -> None:
    groups = [FINE, FINE]
    groups[weakest] = COARSE
    assert mined(seed, f"data.groups={groups}", "data.variants=1") == [f"m{weakest + 1}"]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("strongest", [0, 1, 2])
def test_the_pair_without_the_strongest_is_mined(strongest: int, seed: int) -> None:
    groups = [COARSE] * 3
    groups[strongest] = FINE
    pair = [f"m{i + 1}" for i in range(3) if i != strongest]
    keys = ["data.num_modalities=3", f"data.groups={groups}", "data.variants=1"]
    assert mined(seed, *keys) == [*pair, "+".join(pair)]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("weakest", [0, 1])
def test_the_metric_distance_finds_the_unclear_modality(weakest: int, seed: int) -> None:
    """A decoy leaves the histogram uniform: only the metric tells."""
    clarity = [0.95, 0.95]
    clarity[weakest] = 0.4
    keys = [
        f"data.groups={[FINE, FINE]}",
        f"data.clarity={clarity}",
        "data.variants=1",
        "method.mining=metric",
    ]
    assert mined(seed, *keys) == [f"m{weakest + 1}"]


def test_regularisation_raises_the_weak_modality() -> None:
    gains = []
    for seed in (0, 1, 2):
        scores = []
        for weight in (4, 0):
            keys = [f"method.regularization_weight={weight}", f"seed={seed}", "trainer.max_epochs=8"]
            method, data = train(
                "method=mmanet", "method.warm_up=1", "method.mining_epochs=1", "method.weak=[m2]", *keys
            )
            scores.append(accuracies(method, data)["m2"])
        gains.append(scores[0] - scores[1])
    assert np.mean(gains) > 0.01, gains


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_distillation_weighs_more_where_the_teachers_margin_is_small(seed: int) -> None:
    """The margin is the gap of its two largest probabilities. Where the teacher's logits are withheld all samples
    weigh the same, and the mistakes that a student makes near the boundary are as dear as those far from it."""
    teacher, data = train("method=fusion", f"seed={seed}", "data.num_train=1024", "trainer.max_epochs=3")
    with torch.inference_mode():
        outputs = [teacher(batch) for batch in data.loader("test")]
        logits = torch.cat([output.logits for output in outputs])
        fused = torch.cat([output.fused for output in outputs if output.fused is not None])
    first, second = logits.softmax(1).topk(2).values.T
    margin = first - second
    assert spearman_corrcoef(margin_weights(logits), margin) < -0.9
    near, far = margin <= margin.quantile(0.25), margin > margin.quantile(0.75)

    def price(wrong: torch.Tensor, logits: torch.Tensor) -> float:
        """Of a student that is lost, everywhere the same, on some samples and follows the teacher on the others."""
        student = torch.where(wrong[:, None], fused.mean(0), fused)
        return float(margin_aware_distillation(student, fused, logits))

    assert price(near, logits) > 2 * price(far, logits)
    assert price(near, torch.zeros_like(logits)) < 2 * price(far, torch.zeros_like(logits))
