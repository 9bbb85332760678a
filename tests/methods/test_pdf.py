"""PDF against its rules."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.methods.pdf import PDF, calibration, co_belief, confidence_network
from mmrobust.testing import check_method, describe_data, fill_absent, make_batch, step


def make(*overrides: str, num_modalities: int = 2) -> PDF:
    torch.manual_seed(0)
    config = compose_config(["method=pdf", "encoder.width=8", *overrides]).method
    method: PDF = construct(config, spec=describe_data(num_modalities=num_modalities, kinds=("vector",)))
    return method


def believed(confidence: list[float], available: list[bool] | None = None) -> list[float]:
    c = torch.tensor([confidence], dtype=torch.float64)
    there = torch.tensor([available or [True] * len(confidence)])
    found: list[float] = co_belief(c.log(), there)[0].tolist()
    return found


def test_co_belief_of_two() -> None:
    """Holo-confidence of the first: log 0.8 / log 0.4; of the second: log 0.5 / log 0.4."""
    a, b = believed([0.5, 0.8])
    assert a == pytest.approx(0.5 + math.log(0.8) / math.log(0.4))
    assert b == pytest.approx(0.8 + math.log(0.5) / math.log(0.4))
    assert a == pytest.approx(0.743529, abs=1e-6)
    assert b == pytest.approx(1.556471, abs=1e-6)


def test_co_belief_of_three() -> None:
    """Each is compared with the product of the other two; the shares add up to M - 1."""
    c = [0.5, 0.8, 0.9]
    product = math.log(0.5 * 0.8 * 0.9)
    expected = [
        0.5 + math.log(0.8 * 0.9) / product,
        0.8 + math.log(0.5 * 0.9) / product,
        0.9 + math.log(0.5 * 0.8) / product,
    ]
    assert believed(c) == pytest.approx(expected)
    assert sum(believed(c)) - sum(c) == pytest.approx(2)


def test_co_belief_under_absence() -> None:
    """As if absent ones did not exist; one alone has its own confidence."""
    found = believed([0.5, 0.1, 0.8], [True, False, True])
    assert [found[0], found[2]] == pytest.approx(believed([0.5, 0.8]))
    assert believed([0.3, 0.9], [True, False])[0] == pytest.approx(0.3)
    assert believed([0.3]) == pytest.approx([0.3])


def test_co_belief_at_the_extremes() -> None:
    """All certain, or hopeless: finite."""
    logs = F.logsigmoid(torch.tensor([[100.0, 100.0], [-100.0, -100.0], [100.0, -100.0]]))
    found = co_belief(logs, torch.ones(3, 2, dtype=torch.bool))
    assert found.isfinite().all()
    assert found[2, 0] > found[2, 1]


def test_calibration_by_hand() -> None:
    """Of four classes: p = (0.7, 0.1, 0.1, 0.1) is 0.225 from uniform, (0.4, 0.2, 0.2, 0.2) is 0.075."""
    sharp, blunt, flat = ([0.7, 0.1, 0.1, 0.1], [0.4, 0.2, 0.2, 0.2], [0.25] * 4)
    logits = torch.tensor([[sharp, blunt, flat]] * 4).log()
    available = torch.tensor(
        [[True, True, False], [True, True, True], [False, True, False], [False, False, True]]
    )
    found = calibration(logits, available)
    torch.testing.assert_close(found[0, :2], torch.tensor([1.0, 1 / 3]))
    torch.testing.assert_close(found[1], torch.tensor([1.0, 0.075 / 0.1125, 0.0]))
    torch.testing.assert_close(found[2, 1], torch.tensor(1.0))
    torch.testing.assert_close(found[3, 2], torch.tensor(1.0))
    everything_flat = calibration(torch.zeros(1, 2, 4), torch.ones(1, 2, dtype=torch.bool))
    assert everything_flat.isfinite().all()


@pytest.mark.parametrize("in_training", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_fusion_is_a_softmax_of_beliefs(training: bool, in_training: bool) -> None:
    method = make(f"method.calibrate_in_training={str(in_training).lower()}", num_modalities=3)
    method.train(training)
    batch = make_batch(method.spec, complete=False)
    features = method.encode(batch)
    output = method.fuse(features, batch.available)
    for row in range(len(batch)):
        there = batch.available[row]
        names = [m for m, present in zip(features, there, strict=True) if present]
        logits = torch.stack([method.heads[m](features[m][row]).logits for m in names])
        c = torch.stack([method.confidences[m](features[m][row]).sigmoid() for m in names])[:, 0]
        whole = torch.ones(1, len(names), dtype=torch.bool)
        belief = co_belief(c.log()[None], whole)[0]
        if in_training or not training:
            belief = belief * calibration(logits[None], whole)[0]
        weights = belief.softmax(0)
        torch.testing.assert_close(output.extras["weights"][row, there], weights)
        torch.testing.assert_close(output.logits[row], (weights[:, None] * logits).sum(0))
        assert (output.extras["weights"][row, ~there] == 0).all()


def test_terms_are_the_papers() -> None:
    method = make("method.unimodal_weight=0.5", "method.confidence_weight=0.3")
    batch = make_batch(method.spec, complete=False)
    output = method.train().fuse(method.encode(batch), batch.available)
    terms = step(method, batch)
    torch.testing.assert_close(terms["fused"], F.cross_entropy(output.logits, batch.target).detach())
    unimodal, confidence = torch.tensor(0.0), torch.tensor(0.0)
    for i, logits in enumerate(y.logits for y in output.unimodal.values()):
        rows = batch.available[:, i]
        true_class = logits.softmax(1)[torch.arange(len(batch)), batch.target].detach()
        unimodal -= true_class[rows].log().sum() / len(batch)
        error = (output.extras["confidence"][:, i].detach() - true_class).abs()
        confidence += error[rows].sum() / len(batch)
    torch.testing.assert_close(terms["unimodal"], 0.5 * unimodal)
    torch.testing.assert_close(terms["confidence"], 0.3 * confidence)


def test_blocked_gradients() -> None:
    """The confidence term trains the confidence networks and nothing else; the other terms everything else."""
    method = make(num_modalities=3).train()
    terms = method.losses(make_batch(method.spec))
    for name, parameter in method.named_parameters():
        own = name.startswith("confidences.")
        for term, loss in terms.items():
            (gradient,) = torch.autograd.grad(loss, parameter, retain_graph=True, allow_unused=True)
            moved = gradient is not None and bool((gradient != 0).any())
            assert not moved or own == (term == "confidence"), (name, term)


def test_confidence_networks() -> None:
    """Of the released sizes; without anything between, they are linear."""
    linear, deep = confidence_network(4, linear=True), confidence_network(4, linear=False)
    sizes = [(x.in_features, x.out_features) for x in deep if isinstance(x, nn.Linear)]
    assert sizes == [(4, 8), (8, 4), (4, 1)]
    x, y = torch.randn(2, 5, 4)
    torch.testing.assert_close(linear((x + y) / 2), (linear(x) + linear(y)) / 2)
    assert not torch.allclose(deep((x + y) / 2), (deep(x) + deep(y)) / 2)
    released = make("method.as_released.linear_confidence=true")
    assert not any(isinstance(layer, nn.ReLU) for layer in released.confidences.modules())


def test_confidence_learns_the_probability_of_the_true_class() -> None:
    """Of a modality that tells the class and one that does not, the first is trusted more."""
    method = make("encoder.norm=group")
    batch = make_batch(method.spec, size=64)
    batch.inputs["m1"] = F.one_hot(batch.target, 12).float() * 3
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
    for _ in range(60):
        step(method, batch)
        optimizer.step()
    fresh = make_batch(method.spec, size=64, seed=1)
    fresh.inputs["m1"] = F.one_hot(fresh.target, 12).float() * 3
    with torch.no_grad():
        output = method.eval()(fresh)
    assert (output.extras["weights"][:, 0] > output.extras["weights"][:, 1]).float().mean() > 0.9


def test_absent_modalities_cannot_change_the_output() -> None:
    method = make(num_modalities=3).eval()
    batch = make_batch(method.spec, complete=False)
    with torch.no_grad():
        assert torch.equal(method(fill_absent(batch, 0)).logits, method(fill_absent(batch, torch.nan)).logits)


@pytest.mark.parametrize("num_modalities", [1, 6])
def test_any_number_of_modalities(num_modalities: int) -> None:
    check_method(
        lambda spec: make(num_modalities=len(spec.modalities)),
        describe_data(num_modalities=num_modalities, kinds=("vector",)),
    )
