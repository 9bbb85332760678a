"""AGM against its rules."""

from __future__ import annotations

import math

import pytest
import torch

from mmrobust.combinations import all_combinations, combination_masks
from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.methods.agm import AGM, shapley_weights
from mmrobust.testing import describe_data, make_batch, step


def make(*overrides: str, num_modalities: int = 2) -> AGM:
    torch.manual_seed(0)
    config = compose_config(["method=agm", "encoder.width=8", *overrides]).method
    method: AGM = construct(config, spec=describe_data(num_modalities=num_modalities, kinds=("vector",)))
    return method


def masks(count: int) -> torch.Tensor:
    names = [str(i) for i in range(count)]
    return combination_masks(all_combinations(names), names)


def test_responses_of_two_are_the_published() -> None:
    """phi_1 = (f(1, 2) - f(2) + f(1)) / 2, of the combinations 1, 2, 1+2 in this order."""
    assert shapley_weights(masks(2)).tolist() == [[0.5, -0.5, 0.5], [-0.5, 0.5, 0.5]]
    assert shapley_weights(masks(1)).tolist() == [[1.0]]


def test_responses_of_three_by_hand() -> None:
    """Over all six orders: first in 2, after the second and after the third modality 1 each, last in 2."""
    thirds, sixths = 2 / 6, 1 / 6
    expected = [thirds, -sixths, -sixths, sixths, sixths, -thirds, thirds]  # 1 2 3 12 13 23 123
    assert shapley_weights(masks(3))[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("fusion", ["concat", "gated"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_responses_sum_to_the_prediction_and_the_absent_has_none(count: int, fusion: str) -> None:
    method = make(f"fusion={fusion}", num_modalities=count).eval()
    batch = make_batch(method.spec, size=16, complete=False)
    with torch.no_grad():
        responses = method.responses(method.encode(batch), batch.available)
        logits = method(batch).logits
    torch.testing.assert_close(responses.sum(0), logits)
    absent = responses.transpose(0, 1)[~batch.available]
    torch.testing.assert_close(absent, torch.zeros_like(absent))


def test_coefficients_by_hand() -> None:
    """Scores that differ by log 2, then by log 4: the running means are 2 and 3, 1/2 and 3/8."""
    method = make("method.alpha=0.5")
    both = torch.tensor([True, True])
    first = method.compare(torch.tensor([-1.0, -1 - math.log(2)]), both)
    assert first.tolist() == pytest.approx([1, 1])
    second = method.compare(torch.tensor([-1.0, -1 - math.log(4)]), both)
    assert method.ratio.tolist() == pytest.approx([3, 3 / 8])
    assert second.tolist() == pytest.approx([math.exp(-0.5), math.exp(0.5 * (3 / 8 - 1 / 4))])


def test_balanced_modalities_are_not_modulated() -> None:
    method = make(num_modalities=3)
    seen = torch.ones(3, dtype=torch.bool)
    for level in (-2.0, -1.0, -0.1):
        assert method.compare(torch.full((3,), level), seen).tolist() == [1, 1, 1]


def test_nothing_overflows_and_the_unseen_is_left_alone() -> None:
    method = make("method.alpha=5", num_modalities=3)
    seen = torch.tensor([True, True, False])
    for scores in ([-1e30, 0.0, 0.0], [0.0, -1e30, 0.0]):
        k = method.compare(torch.tensor(scores), seen)
        assert k.isfinite().all()
        assert k[2] == 1
    assert method.steps.tolist() == [2, 2, 0]


def test_gradients_of_encoders_are_scaled_and_nothing_else() -> None:
    method = make()
    step(method, make_batch(method.spec))
    before = {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
    method.coefficients = torch.tensor([0.5, 2.0])
    method.modulate()
    for name, p in method.named_parameters():
        factor = {"encoders.m1": 0.5, "encoders.m2": 2.0}.get(name[:11], 1.0)
        torch.testing.assert_close(p.grad, factor * before[name])


def test_the_running_mean_is_restored() -> None:
    method, other = make(), make()
    for seed in range(3):
        step(method, make_batch(method.spec, seed=seed))
    other.load_state_dict(method.state_dict())
    assert other.ratio.any()
    batch = make_batch(method.spec, seed=9)
    step(method, batch)
    step(other, batch)
    assert torch.equal(method.coefficients, other.coefficients)
    assert not torch.equal(method.coefficients, torch.ones(2))
