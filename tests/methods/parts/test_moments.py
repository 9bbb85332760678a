"""Mean and variance over the available modalities."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from mmrobust.combinations import draw_combinations
from mmrobust.errors import UserError
from mmrobust.methods.parts.moments import Moments, mean_and_variance

B = 10


def draw(count: int, *, width: int = 3) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = {f"m{i}": torch.randn(B, width, 2, generator=generator) for i in range(count)}
    return features, draw_combinations(torch.ones(B, count).bool(), torch.arange(B), 0, "test")


def test_by_hand() -> None:
    """1, 3 and 8 of which the last is absent; then all three; then the second alone."""
    features = {m: torch.full((3, 1), x) for m, x in (("a", 1.0), ("b", 3.0), ("c", 8.0))}
    available = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 0]]).bool()
    mean, variance = mean_and_variance(features, available, over_absent=False)
    torch.testing.assert_close(mean.squeeze(1), torch.tensor([2.0, 4.0, 3.0]))
    torch.testing.assert_close(variance.squeeze(1), torch.tensor([1.0, 26 / 3, 0.0]))
    mean, variance = mean_and_variance(features, available, over_absent=True)
    torch.testing.assert_close(mean.squeeze(1), torch.tensor([2.0, 4.0, 3.0]))
    torch.testing.assert_close(variance.squeeze(1), torch.tensor([(1 + 1 + 4) / 2, 26 / 3, 0.0]))


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_complete_rows_have_torchs_moments(count: int) -> None:
    features, _ = draw(count)
    stacked = torch.stack(list(features.values()))
    mean, variance = mean_and_variance(features, torch.ones(B, count).bool(), over_absent=False)
    torch.testing.assert_close(mean, stacked.mean(0))
    torch.testing.assert_close(variance, stacked.var(0, correction=0))


@pytest.mark.parametrize("over_absent", [False, True])
def test_the_order_of_the_modalities_does_not_matter(over_absent: bool) -> None:
    features, available = draw(3)
    expected = mean_and_variance(features, available, over_absent=over_absent)
    for order in permutations(range(3)):
        shuffled = {f"m{i}": features[f"m{i}"] for i in order}
        found = mean_and_variance(shuffled, available[:, list(order)], over_absent=over_absent)
        torch.testing.assert_close(found, expected)


def test_every_modality_twice_changes_nothing() -> None:
    features, available = draw(3)
    twice = features | {f"again_{m}": x for m, x in features.items()}
    expected, variance = mean_and_variance(features, available, over_absent=False)
    found, variance_found = mean_and_variance(twice, available.repeat(1, 2), over_absent=False)
    torch.testing.assert_close(found, expected)
    several = available.sum(1) > 1  # one alone has no variance by rule, two equal ones by arithmetic
    torch.testing.assert_close(variance_found[several], variance[several])
    assert variance_found[~several].abs().max() < 1e-12


def test_equal_modalities_have_no_variance() -> None:
    features, _ = draw(1)
    same = dict.fromkeys(("a", "b", "c"), features["m0"])
    _, variance = mean_and_variance(same, torch.ones(B, 3).bool(), over_absent=False)
    assert variance.abs().max() < 1e-12


@pytest.mark.parametrize("over_absent", [False, True])
def test_absent_content_and_its_gradient(over_absent: bool) -> None:
    features, available = draw(3)
    found = []
    for value in (0.0, torch.nan):
        filled = {m: x.clone() for m, x in features.items()}
        for i, x in enumerate(filled.values()):
            x[~available[:, i]] = value
            x.requires_grad_()
        mean, variance = mean_and_variance(filled, available, over_absent=over_absent)
        (mean.square() + variance).sum().backward()
        found.append((mean, variance, *(x.grad for x in filled.values())))
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)
    for i, gradient in enumerate(found[1][2:]):
        assert not gradient[~available[:, i]].any()
        assert gradient[available[:, i]].any()


def test_moments_project_to_one_width() -> None:
    torch.manual_seed(0)
    features = {"a": torch.randn(B, 2, 3, 2), "b": torch.randn(B, 5, 3, 2)}
    moments = Moments({"a": 2, "b": 5}, width=4, over_absent=False)
    fused = moments(features, torch.tensor([[True, False]]).expand(B, 2))
    assert fused.shape == (B, moments.width, 3, 2) == (B, 8, 3, 2)
    torch.testing.assert_close(fused[:, :4], moments.projections[0](features["a"]))
    assert not fused[:, 4:].any()
    with pytest.raises(UserError, match="different sizes"):
        moments({"a": torch.zeros(B, 2, 3), "b": torch.zeros(B, 5, 4)}, torch.ones(B, 2).bool())
