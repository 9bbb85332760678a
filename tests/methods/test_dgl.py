"""DGL: who gets a gradient from what."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.methods.dgl import DGL
from mmrobust.testing import describe_data, make_batch, step

FUSIONS = ["concat", "sum", "gated", "film"]


def make(*overrides: str, num_modalities: int = 3) -> DGL:
    torch.manual_seed(0)
    config = compose_config(["method=dgl", "encoder.width=8", *overrides]).method
    method: DGL = construct(config, spec=describe_data(num_modalities=num_modalities, kinds=("vector",)))
    return method


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_blocked_gradient_is_zero(fusion: str) -> None:
    """The multimodal loss reaches no encoder; a unimodal one neither fusion nor head nor another encoder."""
    method = make(f"fusion={fusion}").train()
    parameters = dict(method.named_parameters())
    for term, loss in method.losses(make_batch(method.spec, size=16)).items():
        found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            learns = (
                not name.startswith("encoders.") if term == "task" else name.startswith(f"encoders.{term}.")
            )
            assert (gradient is not None and bool(gradient.any())) <= learns, f"{term} reaches {name}"
            if learns:
                assert gradient is not None, f"{term} does not reach {name}"


@pytest.mark.parametrize("fusion", FUSIONS)
def test_one_pass_is_the_released_two(fusion: str) -> None:
    """Backward of the unimodal losses, the fusion's gradients cleared, backward of the multimodal loss."""
    method = make(f"fusion={fusion}", "method.unimodal_weight=2.5").train()
    batch = make_batch(method.spec, size=16)
    features = method.encode(batch)
    unimodal = [F.cross_entropy(y, batch.target) for y in method.unimodal(features).values()]
    method.zero_grad()
    (2.5 * torch.stack(unimodal).sum()).backward()
    method.fusion.zero_grad()
    method.head.zero_grad()
    detached = {m: x.detach() for m, x in features.items()}
    F.cross_entropy(method.fuse(detached, batch.available).logits, batch.target).backward()
    expected = {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
    step(method, batch)
    for name, p in method.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], msg=name)


def test_unimodal_losses_count_rows_that_have_the_modality() -> None:
    method = make(num_modalities=2)
    batch = make_batch(method.spec, size=8)
    available = batch.available.clone()
    available[:4, 0] = False
    batch = batch.with_available(available)
    before = step(method, batch)
    batch.target[:4] = (batch.target[:4] + 1) % 4
    after = step(method, batch)
    assert before["m1"] == after["m1"]
    assert before["m2"] != after["m2"]
