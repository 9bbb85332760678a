"""DMRNet's claims on generated data. What could not be shown is told in .github/results.md: that a large variance finds the
weakest modality, and that the representation keeps more of each modality.

Of two modalities the weaker has the smaller variance on average over the two places it can have, with KL 8 over all
dimensions, as on CASIA-SURF, 8 epochs of mining, concatenation or a sum, be it weak by decoys or by many patterns;
m2 is mined in 8 of 9 trainings, whichever is the weaker (one seed). Cross-entropy may be why: it curves most where a
prediction is unsure, so that noise costs most there.

A linear probe (ridge regression, networks of width 8) reads off which of its patterns m2 showed with 50.6, 53.0, 47.8 %
against 47.8, 49.1, 42.0 % after dropout, but without sampling just as well: 50.7, 53.1, 50.2 %.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmrobust.combinations import all_combinations, combination_masks
from mmrobust.data.base import DataModule
from mmrobust.methods.base import Method
from mmrobust.methods.dmrnet import DMRNet
from tests.claims.training import accuracies, train

pytestmark = pytest.mark.long

SEEDS = (0, 1, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_regulariser_raises_the_combination_that_it_is_given(seed: int) -> None:
    """In a small network, where modalities compete; given the other combination, it does not."""
    common = ["method=dmrnet", f"seed={seed}", "encoder.width=4", "optimizer.lr=3e-3", "trainer.max_epochs=8"]

    def weak(*overrides: str) -> float:
        return accuracies(*train(*common, *overrides))["m2"]

    without = weak("method.hard=[m2]", "method.mining_epochs=0", "method.hard_weight=0")
    assert weak("method.hard=[m2]", "method.mining_epochs=0", "method.hard_weight=3") > without + 0.01
    assert weak("method.hard=[m1]", "method.mining_epochs=0", "method.hard_weight=3") < without


def mean_cosine(method: Method, data: DataModule) -> float:
    """Of the representations of one sample under different combinations."""
    masks = combination_masks(all_combinations(method.modalities), method.modalities)
    found = []
    with torch.inference_mode():
        for batch in data.loader("test"):
            features = method.encode(batch)
            rows = [method.fusion(features, mask.expand(len(batch), -1)) for mask in masks]
            if isinstance(method, DMRNet):
                rows = [method.mean(row) for row in rows]
            pairs = [F.cosine_similarity(a, b) for i, a in enumerate(rows) for b in rows[:i]]
            found.append(torch.stack(pairs).mean(0))
    return torch.cat(found).mean().item()


@pytest.mark.parametrize("seed", SEEDS)
def test_combinations_of_a_class_point_less_in_one_direction(seed: int) -> None:
    """Than with modality dropout. With `sample=false` they do so even less: here it is the normalised linear map, not
    the sampling, that lets them; so the mechanism of the paper is not what this shows."""
    common = ["fusion=sum", f"seed={seed}", "trainer.max_epochs=8"]
    dropout = mean_cosine(*train("method=dropout", *common))
    ours = mean_cosine(*train("method=dmrnet", "method.mining_epochs=3", *common))
    assert ours < dropout - 0.005


@pytest.mark.parametrize("seed", SEEDS)
def test_variance_falls_with_every_modality_more(seed: int) -> None:
    """Where the KL term weighs per dimension what it does on CASIA-SURF (1e-3 over 8192 dimensions, here 0.043 over 192);
    with 1e-3 it is too weak for that."""

    def variances(kl_weight: float) -> list[float]:
        """Mean variance of the combinations of one, two, three modalities."""
        groups = "[[0,1,2,3,4,5,6,7],[0,1,2,3,4,5,6,7],[0,1,2,3,4,5,6,7]]"
        method, _ = train(
            *("method=dmrnet", f"method.kl_weight={kl_weight}", "method.mining_epochs=6", f"seed={seed}"),
            *("data.num_modalities=3", "data.kinds=[image]", "data.variants=1", f"data.groups={groups}"),
            *("data.clarity=[0.9,0.9,0.4]", "data.shared=0", "trainer.max_epochs=6"),
        )
        assert isinstance(method, DMRNet)
        mining = method.mining
        mean = mining.total / mining.count
        sizes: list[list[float]] = [[], [], []]
        for code, name in mining.names.items():
            sizes[name.count("+")].append(float(mean[code]))
        return [sum(size) / len(size) for size in sizes]

    one, two, three = variances(0.043)
    assert one > two + 0.02 > three + 0.04
    one, two, three = variances(1e-3)
    assert not one > two + 0.02 > three + 0.04
