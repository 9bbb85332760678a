"""Losses against independent formulas and published limits."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from mmrobust.losses import gaussian_kl


def gaussians(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = (torch.randn(*shape, dtype=dtype, generator=generator) for _ in range(2))
    return mean, log_variance


@pytest.mark.parametrize("prior", [1.0, 4.0, 0.25, 3])
def test_gaussian_kl_is_the_divergence(prior: float) -> None:
    mean, log_variance = gaussians(5, 7)
    ours = Independent(Normal(mean, (0.5 * log_variance).exp()), 1)
    standard = Independent(Normal(torch.zeros(5, 7).double(), torch.full((5, 7), prior**0.5).double()), 1)
    expected = kl_divergence(ours, standard).mean()
    torch.testing.assert_close(gaussian_kl(mean, log_variance, prior_variance=prior), expected)


def test_gaussian_kl_golden_value() -> None:
    """mu = 0.5, s2 = 2, t = 4: (ln 2 + 2.25 / 4 - 1) / 2 for each dimension."""
    mean, log_variance = torch.full((2, 3), 0.5), torch.full((2, 3), 2.0).log()
    value = gaussian_kl(mean, log_variance, prior_variance=4.0)
    assert value.item() == pytest.approx(3 * 0.127824, abs=1e-5)


def test_gaussian_kl_is_zero_at_the_prior_only() -> None:
    assert gaussian_kl(torch.zeros(4, 3), torch.zeros(4, 3)).item() == 0
    prior = torch.tensor([0.5, 2.0, 7.0])
    assert abs(gaussian_kl(torch.zeros(4, 3), prior.log().expand(4, 3), prior_variance=prior).item()) < 1e-6
    mean, log_variance = gaussians(100, 1)
    assert all(gaussian_kl(m[None], v[None]) > 0 for m, v in zip(mean, log_variance, strict=True))


def test_a_prior_per_dimension() -> None:
    mean, log_variance = gaussians(6, 2)
    prior = torch.tensor([0.5, 3.0], dtype=torch.float64)
    both = gaussian_kl(mean, log_variance, prior_variance=prior)
    each = [gaussian_kl(mean[:, [i]], log_variance[:, [i]], prior_variance=prior[i].item()) for i in range(2)]
    torch.testing.assert_close(both, each[0] + each[1])


def test_places_of_a_map_are_further_samples() -> None:
    mean, log_variance = gaussians(2, 3, 4, 5)
    rows = (x.movedim(1, -1).flatten(0, 2) for x in (mean, log_variance))
    torch.testing.assert_close(gaussian_kl(mean, log_variance), gaussian_kl(*rows))


def test_gradients() -> None:
    mean, log_variance = (x.requires_grad_() for x in gaussians(3, 2))
    prior = torch.tensor([0.5, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda m, v, p: gaussian_kl(m, v, prior_variance=p), (mean, log_variance, prior)
    )
