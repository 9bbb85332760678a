"""Diagonal Gaussians over vectors and maps."""

from __future__ import annotations

import pytest
import torch

from mmrobust.methods.parts.gaussian import NormalisedLinear, predict_from_mean, sample_gaussian
from mmrobust.models.heads import LinearHead


@pytest.mark.parametrize("places", [(), (5,), (3, 4), (2, 3, 4)])
def test_normalised_over_rows_and_places(places: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = NormalisedLinear(6)
    y = layer(3 + 2 * torch.randn(16, 6, *places))
    assert y.shape == (16, 6, *places)
    columns = y.movedim(1, -1).reshape(-1, 6)
    torch.testing.assert_close(columns.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(columns.std(0, correction=0), torch.ones(6), atol=1e-3, rtol=0)


def test_both_norms_give_the_same_numbers() -> None:
    torch.manual_seed(0)
    one, two = NormalisedLinear(4), NormalisedLinear(4, maps=True)
    two.load_state_dict(one.state_dict())
    x = torch.randn(3, 4, 5, 6)
    torch.testing.assert_close(one(x), two(x))
    torch.testing.assert_close(one.norm.running_var, two.norm.running_var)
    torch.testing.assert_close(one.eval()(x), two.eval()(x))


def test_folding_changes_nothing() -> None:
    torch.manual_seed(0)
    mean, head = NormalisedLinear(4), LinearHead(4, 3)
    mean(torch.randn(32, 4))
    x = torch.randn(5, 4)
    folded = predict_from_mean(mean.eval(), head, x)
    torch.testing.assert_close(folded.logits, head(mean(x)).logits)


def test_samples_have_the_moments() -> None:
    torch.manual_seed(0)
    mean, log_variance = torch.full((20000, 1), 2.0), torch.full((20000, 1), 9.0).log()
    z = sample_gaussian(mean, log_variance)
    assert abs(z.mean() - 2) < 0.1
    assert abs(z.std() - 3) < 0.1
