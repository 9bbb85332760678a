"""MLA against its rules."""

from __future__ import annotations

import math

import pytest
import torch

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.methods.mla import MLA, mix_by_entropy, shrink
from mmrobust.testing import describe_data, make_batch


def make(*overrides: str, num_modalities: int = 2) -> MLA:
    torch.manual_seed(0)
    config = compose_config(["method=mla", "encoder.width=8", *overrides]).method
    method: MLA = construct(config, spec=describe_data(num_modalities=num_modalities, kinds=("vector",)))
    return method


def test_projection_by_hand() -> None:
    """P = I, z = (1, 2), alpha = 1: I - z z^T / 6."""
    p = shrink(torch.eye(2), torch.tensor([1.0, 2.0]), 1.0)
    torch.testing.assert_close(p, torch.tensor([[5 / 6, -1 / 3], [-1 / 3, 1 / 3]]))


def test_projection_stays_symmetric_and_positive() -> None:
    """It is the inverse of I + sum z z^T / alpha, which recursive least squares keeps up to date."""
    p, inverse = torch.eye(6), torch.eye(6, dtype=torch.float64)
    for z in torch.randn(300, 6, generator=torch.Generator().manual_seed(0)):
        p = shrink(p, z, 0.5)
        inverse += torch.outer(z, z).double() / 0.5
    assert torch.equal(p, p.t())
    assert torch.linalg.eigvalsh(p.double()).min() >= -1e-7
    torch.testing.assert_close(p.double(), inverse.inverse(), atol=1e-5, rtol=1e-3)


def test_mixture_by_hand() -> None:
    """One prediction of certainty, one of none: entropies 0 and log 2, weights 2/3 and 1/3."""
    logits = torch.tensor([[[50.0, 0.0], [0.0, 0.0]]]).repeat(3, 1, 1)
    available = torch.tensor([[True, True], [True, False], [False, True]])
    p = mix_by_entropy(logits, available).exp()
    expected = [[2 / 3 + 1 / 6, 1 / 6], [1.0, 0.0], [0.5, 0.5]]
    assert p.flatten().tolist() == pytest.approx([x for row in expected for x in row])
    assert -math.log(2) == pytest.approx(mix_by_entropy(logits, available)[2, 0].item())


def run_turns(method: MLA, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """The updates of a batch with plain gradient descent; the parameters before and after each."""
    method.train()
    seen = [{n: p.detach().clone() for n, p in method.named_parameters()}]
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, weight_decay=0.1)
    for terms in method.updates(make_batch(method.spec, size=16, seed=seed)):
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        method.modulate()
        optimizer.step()
        seen.append({n: p.detach().clone() for n, p in method.named_parameters()})
    return seen


def test_each_turn_changes_its_encoder_and_the_head() -> None:
    method = make("data=synthetic", "data.num_modalities=3", "encoder.m2.width=4", num_modalities=3)
    seen = run_turns(method)
    assert len(seen) == 4
    for m, before, after in zip(method.modalities, seen, seen[1:], strict=False):
        changed = {n for n in before if not torch.equal(before[n], after[n])}
        expected = {n for n in before if f".{m}." in n or n.startswith("shared_head")}
        assert changed == expected
        assert any(n.startswith("adapters.m2") for n in expected) == (m == "m2")


def test_the_heads_gradient_is_projected() -> None:
    """A turn hardly changes what the head says of the mean feature of the turn before."""
    moved = {}
    for project in ("true", "false"):
        method = make("method.alpha=1e-6", f"method.project={project}")
        batch = make_batch(method.spec, size=16)
        with torch.no_grad():
            mean = method.train().encode(batch)["m1"].mean(0)
        before, after = (s["shared_head.weight"] for s in run_turns(method)[1:])
        decay = -0.1 * 0.1 * before
        moved[project] = ((after - before - decay) @ mean).norm().item()
        assert (not torch.equal(method.projection, torch.eye(8))) == (project == "true")
    assert moved["true"] < 1e-4 * moved["false"]


def test_the_projection_takes_in_the_mean_of_rows_that_have_the_modality() -> None:
    method = make().train()
    batch = make_batch(method.spec, size=16)
    available = batch.available.clone()
    available[:5, 0] = False
    available[:, 1] = False
    available[:5, 1] = True
    batch = batch.with_available(available)
    with torch.no_grad():
        z = method.encode(batch)
    for _ in method.updates(batch):
        pass
    expected = shrink(shrink(torch.eye(8), z["m1"][5:].mean(0), 1.0), z["m2"][:5].mean(0), 1.0)
    torch.testing.assert_close(method.projection, expected)


def test_the_projection_is_restored_and_a_modality_that_none_has_leaves_it() -> None:
    method, other = make(), make()
    run_turns(method)
    other.load_state_dict(method.state_dict())
    for m in (method, other):
        run_turns(m, seed=1)
    assert torch.equal(method.projection, other.projection)
    batch = make_batch(method.spec)
    available = batch.available.clone()
    available[:, 1] = False
    before = None
    for _ in method.updates(batch.with_available(available)):
        before = before if before is not None else None
        if method.turn == "m2":
            before = method.projection.clone()
    assert before is not None
    assert torch.equal(method.projection, before)


def test_mistakes() -> None:
    with pytest.raises(UserError, match="alpha=0"):
        make("method.alpha=0.0")
