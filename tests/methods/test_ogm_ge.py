"""OGM-GE against its rules."""

from __future__ import annotations

import math

import pytest
import torch

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.methods.ogm_ge import OGMGE, damping
from mmrobust.testing import describe_data, make_batch, step


def make(*overrides: str, num_modalities: int = 2, kinds: tuple[str, ...] = ("vector",)) -> OGMGE:
    torch.manual_seed(0)
    config = compose_config(["method=ogm_ge", "encoder.width=8", *overrides]).method
    method: OGMGE = construct(config, spec=describe_data(num_modalities=num_modalities, kinds=kinds))
    return method


def weights_of(method: OGMGE) -> dict[str, list[torch.Tensor]]:
    """The gradients of every encoder's weights, and of everything else."""
    found: dict[str, list[torch.Tensor]] = {}
    for name, p in method.named_parameters():
        assert p.grad is not None
        _, _, rest = name.partition("encoders.")
        key = rest.split(".")[0] if rest and p.dim() >= 2 else "else"
        found.setdefault(key, []).append(p.grad.clone())
    return found


def test_coefficients_by_hand() -> None:
    """Ratios 2 and 1/2; then for three 0.9 / 0.45, 0.6 / 0.6, 0.3 / 0.75."""
    k = damping(torch.tensor([0.8, 0.4]), torch.tensor([True, True]), 0.8)
    assert k.tolist() == pytest.approx([1 - math.tanh(1.6), 1])
    k = damping(torch.tensor([0.9, 0.6, 0.3]), torch.ones(3, dtype=torch.bool), 0.5)
    assert k.tolist() == pytest.approx([1 - math.tanh(1.0), 1, 1])


def test_balanced_or_alone_nothing_is_damped() -> None:
    assert damping(torch.full((3,), 0.5), torch.ones(3, dtype=torch.bool), 0.8).tolist() == [1, 1, 1]
    assert damping(torch.tensor([0.9]), torch.tensor([True]), 0.8).tolist() == [1]
    assert damping(torch.tensor([0.9, 0.1]), torch.tensor([True, False]), 0.8).tolist() == [1, 1]


def test_the_lagging_modality_is_never_damped() -> None:
    for scores in torch.rand(100, 4).clamp(min=0.2):
        k = damping(scores, torch.ones(4, dtype=torch.bool), 0.8)
        assert k[scores.argmin()] == 1
        assert ((k > 0) & (k <= 1)).all()
        assert k.argmin() == scores.argmax() or (k == 1).all()


def test_scores_are_the_published_parts_of_a_concatenation() -> None:
    """W_m z_m + b / 2, and the probability of the true class under its softmax."""
    method = make().train()
    batch = make_batch(method.spec, size=16)
    features = method.encode(batch)
    scores = []
    for m, block in zip(method.modalities, method.head.weight.split(8, dim=1), strict=True):
        p = (features[m] @ block.t() + method.head.bias / 2).softmax(1)
        scores.append(p[torch.arange(16), batch.target].sum())
    method.losses(batch)
    expected = damping(torch.stack(scores), torch.tensor([True, True]), method.alpha)
    torch.testing.assert_close(method.coefficients, expected)
    assert method.coefficients.min() < 1


@pytest.mark.parametrize("kind", ["vector", "sequence", "image", "video"])
def test_weights_of_the_leading_encoder_are_scaled_and_nothing_else(kind: str) -> None:
    method = make("method.noise=false", num_modalities=3, kinds=(kind,))
    step(method, make_batch(method.spec, size=16))
    before = weights_of(method)
    method.coefficients = torch.tensor([0.25, 1.0, 0.5])
    method.modulate()
    after = weights_of(method)
    for m, k in (("m1", 0.25), ("m2", 1.0), ("m3", 0.5), ("else", 1.0)):
        for old, new in zip(before[m], after[m], strict=True):
            torch.testing.assert_close(new, k * old)


def test_noise_has_the_deviation_of_the_gradient_and_agrees_over_ranks() -> None:
    seen = []
    for _ in range(2):
        method = make("encoder.width=64")
        step(method, make_batch(method.spec, size=16))
        before = weights_of(method)
        method.coefficients = torch.tensor([0.25, 1.0])
        torch.rand(len(seen))  # ranks have their own default generators
        method.modulate()
        after = weights_of(method)
        assert all(torch.equal(a, b) for a, b in zip(before["else"], after["else"], strict=True))
        for m, k in (("m1", 0.25), ("m2", 1.0)):
            noise, gradient = after[m][1] - k * before[m][1], before[m][1]
            assert noise.std().item() == pytest.approx(gradient.std().item(), rel=0.1)
        seen.append(after["m1"][1])
    assert torch.equal(*seen)


def test_modulation_has_its_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make("method.start=1", "method.end=2")
    for epoch, acts in enumerate([False, True, True, False]):
        monkeypatch.setattr(OGMGE, "current_epoch", epoch)
        step(method, make_batch(method.spec, size=16))
        before = weights_of(method)["m1"]
        method.modulate()
        assert acts != torch.equal(before[0], weights_of(method)["m1"][0])
