"""MMANet's claims on generated data: it mines what carries least, and distils most where its teacher is unsure.

What its two losses gain is experiment M's, see .github/results.md.
"""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional import spearman_corrcoef

from mmrobust.losses import margin_weights
from mmrobust.methods.mmanet import MMANet
from tests.claims.training import train

pytestmark = pytest.mark.long

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


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_distillation_weighs_more_where_the_teachers_margin_is_small(seed: int) -> None:
    """The margin is the gap of its two largest probabilities. Where its logits are withheld all samples weigh the same."""
    teacher, data = train("method=fusion", f"seed={seed}", "data.num_train=1024", "trainer.max_epochs=3")
    with torch.inference_mode():
        logits = torch.cat([teacher(batch).logits for batch in data.loader("test")])
    first, second = logits.softmax(1).topk(2).values.T
    margin = first - second
    near = margin <= margin.quantile(0.25)
    weights, even = margin_weights(logits), margin_weights(torch.zeros_like(logits))
    assert spearman_corrcoef(weights, margin) < -0.9
    assert weights[near].sum() > 0.3
    assert even[near].sum() < 0.3
