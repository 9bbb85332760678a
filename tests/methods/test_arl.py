"""ARL against its rules."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.methods.arl import ARL, asymmetric_coefficients
from mmrobust.testing import describe_data, make_batch, step

BOTH = torch.tensor([True, True])


def make(*overrides: str, num_modalities: int = 2) -> ARL:
    torch.manual_seed(0)
    config = compose_config(["method=arl", "encoder.width=8", *overrides]).method
    method: ARL = construct(config, spec=describe_data(num_modalities=num_modalities, kinds=("vector",)))
    return method


def coefficients(reliance: list[float], entropy: list[float], temperature: float = 8.0) -> list[float]:
    seen = torch.ones(len(reliance), dtype=torch.bool)
    values = torch.tensor(reliance).float(), torch.tensor(entropy).float()
    return asymmetric_coefficients(*values, seen, temperature=temperature, floor=0.6).tolist()


def test_two_modalities_by_hand() -> None:
    """d = (0.75, 0.25), H = (0.4, 0.6), q = (0.6, 0.4): softmax of 8 (0.25 * 0.6, 0.75 * 0.4)."""
    first, second = math.exp(8 * 0.15), math.exp(8 * 0.3)
    expected = [first / (first + second), second / (first + second)]
    assert coefficients([3, 1], [0.8, 1.2]) == pytest.approx(expected)


def test_a_small_entropy_counts_as_the_floor() -> None:
    """H = (0.1, 0.9) is clipped to (0.3, 0.9): q = (0.75, 0.25)."""
    expected = torch.tensor([8 * 0.5 * 0.75, 8 * 0.5 * 0.25]).softmax(0).tolist()
    assert coefficients([1, 1], [0.1, 0.9]) == pytest.approx(expected)


def test_coefficients_sum_to_one_and_follow_lag_and_certainty() -> None:
    assert coefficients([2, 2, 2], [1, 1, 1]) == pytest.approx([1 / 3] * 3)
    assert coefficients([5], [1]) == [1]
    relied, neglected = coefficients([3, 1], [1, 1])
    assert neglected > relied
    certain, uncertain = coefficients([1, 1], [0.5, 1])
    assert certain > uncertain
    assert sum(coefficients([1, 2, 5, 0], [0, 3, 1, 2])) == pytest.approx(1)


def test_a_modality_not_seen_gets_nothing() -> None:
    reliance, entropy = torch.tensor([3.0, 0.0, 1.0]), torch.tensor([0.8, 0.0, 1.2])
    seen = torch.tensor([True, False, True])
    k = asymmetric_coefficients(reliance, entropy, seen, temperature=8, floor=0.6)
    assert k[1] == 0
    assert k[[0, 2]].tolist() == pytest.approx(coefficients([3, 1], [0.8, 1.2]))
    assert asymmetric_coefficients(reliance, entropy, ~seen & seen, temperature=8, floor=0.6).tolist() == [
        0,
        0,
        0,
    ]


def test_reliance_and_entropy_are_means_over_rows_that_have_the_modality() -> None:
    method = make("method.temperature=8")
    y1 = torch.tensor([[2.0, -1.0], [9.0, 9.0]])
    y2 = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    available = torch.tensor([[True, True], [False, True]])
    p = 1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-1))
    h = [-(x * math.log(x) + (1 - x) * math.log(1 - x)) for x in p]
    expected = coefficients([3, 1], [h[0], (math.log(2) + h[1]) / 2])
    assert method.coefficients([y1, y2], available).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("uniform", [False, True])
def test_gradients_of_encoders_grow_by_their_coefficients(
    uniform: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a backward pass of the same losses without hooks."""
    method = make(f"method.as_released.uniform={str(uniform).lower()}").train()
    monkeypatch.setattr(ARL, "current_epoch", 6)
    batch = make_batch(method.spec, size=16)
    features = method.encode(batch)
    unimodal = method.unimodal(features)
    k = method.coefficients(list(unimodal.values()), batch.available)
    assert k.sum() == pytest.approx(1)
    assert (k[0] == k[1]) == uniform
    logits = [method.fuse(features, batch.available).logits, *unimodal.values()]
    losses = [F.cross_entropy(y, batch.target) for y in logits]
    method.zero_grad()
    (losses[0] + 4 * losses[1] + 4 * losses[2]).backward()
    plain = {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
    step(method, batch)
    factors = dict(zip(method.modalities, (1 + k).tolist(), strict=True))
    for name, p in method.named_parameters():
        factor = factors[name.split(".")[1]] if name.startswith("encoders") else 1
        torch.testing.assert_close(p.grad, factor * plain[name], msg=name)


def test_until_the_start_nothing_is_modulated(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make(num_modalities=3)
    batch = make_batch(method.spec)
    seen = {}
    for epoch in (5, 6):
        monkeypatch.setattr(ARL, "current_epoch", epoch)
        seen[epoch] = step(method, batch)
    assert seen[6]["m1"] == 4 * seen[5]["m1"]
    assert seen[6]["task"] == seen[5]["task"]


def test_mistakes() -> None:
    with pytest.raises(UserError, match="entropy_floor=0"):
        make("method.entropy_floor=0.0")
