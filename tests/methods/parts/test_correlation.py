"""Modalities rebuilt from one another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmrobust.combinations import draw_combinations
from mmrobust.errors import UserError
from mmrobust.methods.parts.correlation import LatentCorrelation

B, WIDTH = 6, 4


def make(count: int) -> LatentCorrelation:
    torch.manual_seed(0)
    return LatentCorrelation({f"m{i}": i % 3 + 2 for i in range(count)}, width=WIDTH, hidden=5)


def draw(count: int, *places: int) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = {f"m{i}": torch.randn(B, i % 3 + 2, *places, generator=generator) for i in range(count)}
    return features, draw_combinations(torch.ones(B, count).bool(), torch.arange(B), 0, "test")


def test_by_hand() -> None:
    """The middle one of three vectors: 2 a + 3 c + 5, whatever it is itself, if its MLP says (2, 3, 5)."""
    network, (features, _) = make(3), draw(3)
    last = network.coefficients[1][2]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([2.0, 3.0, 5.0]))
    a, _, c = (f(x) for f, x in zip(network.projections, features.values(), strict=True))
    rebuilt = network(features, torch.ones(B, 3).bool())[:, WIDTH : 2 * WIDTH]
    torch.testing.assert_close(rebuilt, 2 * a + 3 * c + 5)
    rebuilt = network(features, torch.tensor([[False, True, True]]).expand(B, 3))[:, WIDTH : 2 * WIDTH]
    torch.testing.assert_close(rebuilt, 3 * c + 5)


@pytest.mark.parametrize("places", [(), (3, 2)])
def test_coefficients_come_from_the_pooled_feature(places: tuple[int, ...]) -> None:
    network, (features, _) = make(2), draw(2, *places)
    a, b = (f(x) for f, x in zip(network.projections, features.values(), strict=True))
    scalars = network.coefficients[0](a.flatten(2).mean(2) if places else a)  # (B, 2): of b, and the constant
    scale, shift = (scalars[:, i].reshape(B, *[1] * (a.dim() - 1)) for i in (0, 1))
    rebuilt = network(features, torch.ones(B, 2).bool())[:, :WIDTH]
    torch.testing.assert_close(rebuilt, scale * b + shift)


def test_an_absent_modality_is_rebuilt_with_constant_coefficients() -> None:
    network, (features, _) = make(2), draw(2)
    b = network.projections[1](features["m1"])
    scale, shift = network.coefficients[0](torch.zeros(WIDTH))
    fused = network(features, torch.tensor([[False, True]]).expand(B, 2))
    torch.testing.assert_close(fused[:, :WIDTH], scale * b + shift)
    own = network.coefficients[1](b)[:, 1:]  # the present one has nothing to be rebuilt from but its constant
    torch.testing.assert_close(fused[:, WIDTH:], own.expand(-1, WIDTH))


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("places", [(), (3, 2)])
def test_absent_content_changes_nothing(count: int, places: tuple[int, ...]) -> None:
    network, (features, available) = make(count), draw(count, *places)
    before = network(features, available)
    assert before.shape == (B, network.width, *places) == (B, count * WIDTH, *places)
    for i, x in enumerate(features.values()):
        x[~available[:, i]] = torch.nan
    assert torch.equal(network(features, available), before)


def test_one_modality_is_refused() -> None:
    with pytest.raises(UserError, match="the modality m0 alone"):
        make(1)
