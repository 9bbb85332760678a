"""HeMIS: the head sees mean and variance of what modality dropout leaves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.methods.hemis import HeMIS
from mmrobust.testing import check_method, describe_data, make_batch


def make(*overrides: str, num_modalities: int = 3) -> HeMIS:
    torch.manual_seed(0)
    config = compose_config(["method=hemis", "encoder.width=8", "method.width=4", *overrides]).method
    method: HeMIS = construct(config, spec=describe_data(num_modalities=num_modalities, kinds=("vector",)))
    return method


@pytest.mark.parametrize("over_absent", [False, True])
def test_the_task_term(over_absent: bool) -> None:
    method = make(f"method.as_released.variance_over_absent={str(over_absent).lower()}").train()
    batch = make_batch(method.spec, size=16)
    drawn = method.draw(batch)
    assert 0 < (drawn.sum(1) == 2).sum() < 16
    with torch.no_grad():
        features = method.encode(batch)
        projected = torch.stack(
            [f(features[m]) for f, m in zip(method.fusion.projections, features, strict=True)], 1
        )
        fused = []
        for x, present in zip(projected, drawn, strict=True):
            kept = x[present]
            mean, variance = kept.mean(0), kept.var(0, correction=0)
            if over_absent and len(kept) > 1:
                variance = variance + (3 - len(kept)) / len(kept) * mean.square()
            fused.append(torch.cat([mean, variance]))
        expected = F.cross_entropy(method.head(torch.stack(fused)).logits, batch.target)
        torch.testing.assert_close(method.losses(batch)["task"], expected)


def test_one_modality() -> None:
    method = make(num_modalities=1).eval()
    batch = make_batch(method.spec)
    fused = method(batch).fused
    assert fused is not None
    assert fused[:, :4].any()
    assert not fused[:, 4:].any()


def test_released_variance_conforms() -> None:
    spec = describe_data(num_modalities=3, kinds=("vector",))
    check_method(lambda _: make("method.as_released.variance_over_absent=true"), spec)
