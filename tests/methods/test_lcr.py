"""LCR: the head sees the rebuilt modalities."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.methods.lcr import LCR
from mmrobust.testing import describe_data, make_batch


def make(num_modalities: int) -> LCR:
    torch.manual_seed(0)
    config = compose_config(["method=lcr", "encoder.width=8", "method.width=4", "method.hidden=3"]).method
    method: LCR = construct(config, spec=describe_data(num_modalities=num_modalities, kinds=("vector",)))
    return method


def test_the_task_term() -> None:
    """For two modalities: r1 = a1 x2 + b1 and r2 = a2 x1 + b2."""
    method = make(2).train()
    batch = make_batch(method.spec, size=16)
    drawn = method.draw(batch)
    with torch.no_grad():
        encoded = method.encode(batch).values()
        first, second = (
            f(x) * drawn[:, [i]]
            for i, (f, x) in enumerate(zip(method.fusion.projections, encoded, strict=True))
        )
        (a1, b1), (a2, b2) = (
            mlp(x).split(1, 1) for mlp, x in zip(method.fusion.coefficients, (first, second), strict=True)
        )
        logits = method.head(torch.cat([a1 * second + b1, a2 * first + b2], 1)).logits
        torch.testing.assert_close(method.losses(batch)["task"], F.cross_entropy(logits, batch.target))


def test_one_modality_is_refused() -> None:
    with pytest.raises(UserError, match="at least two modalities"):
        make(1)
