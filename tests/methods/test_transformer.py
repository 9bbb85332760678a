"""The late-fusion transformer as a method."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.methods.transformer import Transformer
from mmrobust.testing import check_method, describe_data, make_batch, step


def make(*overrides: str, num_modalities: int = 2) -> Transformer:
    torch.manual_seed(0)
    given = ["method=transformer", "encoder.width=8", "method.width=8", "method.mlp_width=16", *overrides]
    spec = describe_data(num_modalities=num_modalities, kinds=("vector",))
    method: Transformer = construct(compose_config(given).method, spec=spec)
    return method


@pytest.mark.parametrize("drop", [True, False])
def test_the_loss_is_that_of_what_is_seen(drop: bool) -> None:
    method = make(f"method.drop={str(drop).lower()}", "method.dropout=0", num_modalities=3)
    batch = make_batch(method.spec, size=16)
    term = step(method, batch)["task"]
    drawn = method.draw(batch)
    assert not drawn.all()
    losses = {}
    for name, seen in (("drawn", drawn), ("all", batch.available)):
        logits = method.fuse(method.encode(batch), seen).logits
        losses[name] = F.cross_entropy(logits, batch.target).detach()
    torch.testing.assert_close(term, losses["drawn" if drop else "all"])
    assert not torch.allclose(losses["drawn"], losses["all"])


@pytest.mark.parametrize("num_modalities", [1, 6])
def test_any_number_of_modalities(num_modalities: int) -> None:
    check_method(
        lambda spec: make(num_modalities=len(spec.modalities)),
        describe_data(num_modalities=num_modalities, kinds=("vector",)),
    )


def test_mistakes() -> None:
    with pytest.raises(UserError, match="3 attention heads do not divide"):
        make("method.heads=3")
