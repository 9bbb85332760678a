"""Fusion: what an absent modality holds never matters; rows do not see each other."""

from collections.abc import Callable
from functools import partial
from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from mmrobust.combinations import all_combinations, combination_masks, draw_combinations
from mmrobust.errors import UserError
from mmrobust.models.fusion import Concat, FiLM, Gated, Sum

FUSIONS = {
    "concat": Concat,
    "sum": partial(Sum, width=5),
    "gated": partial(Gated, width=5),
    "film": partial(FiLM, width=5),
}
B = 10

every_fusion = pytest.mark.parametrize("name", FUSIONS)
every_count = pytest.mark.parametrize("count", [1, 2, 3, 6])
places = pytest.mark.parametrize("places", [(), (3, 2)], ids=["vectors", "maps"])


def make(name: str, count: int) -> nn.Module:
    torch.manual_seed(0)
    make_fusion: Callable[..., nn.Module] = FUSIONS[name]
    return make_fusion({f"m{i}": i % 3 + 2 for i in range(count)})


def draw(count: int, places: tuple[int, ...] = (), size: int = B) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {f"m{i}": torch.randn(size, i % 3 + 2, *places, generator=generator) for i in range(count)}


def incomplete(count: int) -> Tensor:
    return draw_combinations(torch.ones(B, count).bool(), torch.arange(B), 0, "test")


@every_fusion
@every_count
@places
def test_shape(name: str, count: int, places: tuple[int, ...]) -> None:
    fusion = make(name, count)
    fused = fusion(draw(count, places), incomplete(count))
    assert fused.shape == (B, fusion.width, *places)
    assert fused.isfinite().all()


CONTENTS = [(name, value) for name in FUSIONS for value in (0.0, 1e4, torch.nan)]


@pytest.mark.parametrize(
    ("name", "content"), [c for c in CONTENTS if c[0] in ("concat", "gated") or c[1] == c[1]], ids=str
)
@every_count
@places
def test_absent_features_change_nothing(
    name: str, content: float, count: int, places: tuple[int, ...]
) -> None:
    fusion, available = make(name, count), incomplete(count)
    found = []
    for value in (1.0, content):
        features = {}
        for i, (m, x) in enumerate(draw(count, places).items()):
            x[~available[:, i]] = value
            features[m] = x.requires_grad_()
        fusion.zero_grad()
        fused = fusion(features, available)
        fused.square().sum().backward()
        found.append((fused, [x.grad for x in features.values()], [p.grad for p in fusion.parameters()]))
    (fused_1, inner_1, weights_1), (fused_2, inner_2, weights_2) = found
    assert torch.equal(fused_1, fused_2)
    for i, (first, second) in enumerate(zip(inner_1, inner_2, strict=True)):
        assert torch.equal(first, second)
        assert not first[~available[:, i]].any()
        assert first[available[:, i]].any() or not available[:, i].any()
    for first, second in zip(weights_1, weights_2, strict=True):
        torch.testing.assert_close(first, second)


@every_fusion
@places
def test_rows_do_not_see_each_other(name: str, places: tuple[int, ...]) -> None:
    fusion, features, available = make(name, 3), draw(3, places), incomplete(3)
    together = fusion(features, available)
    for row in range(B):
        alone = fusion({m: x[row : row + 1] for m, x in features.items()}, available[row : row + 1])
        torch.testing.assert_close(alone[0], together[row])


@every_fusion
def test_places_do_not_see_each_other(name: str) -> None:
    fusion, features, available = make(name, 3), draw(3, (2, 2)), incomplete(3)
    whole = fusion(features, available)
    for i, j in ((0, 0), (1, 0)):
        place = fusion({m: x[:, :, i, j] for m, x in features.items()}, available)
        torch.testing.assert_close(whole[:, :, i, j], place)


@every_fusion
def test_combinations_differ(name: str) -> None:
    """The mask is not ignored: the same features give another result under each combination."""
    fusion = make(name, 3)
    masks = combination_masks(all_combinations(["m0", "m1", "m2"]), ["m0", "m1", "m2"])
    features = {m: x.expand(len(masks), -1) for m, x in draw(3, size=1).items()}
    fused = fusion(features, masks)
    distances = torch.cdist(fused, fused) + torch.eye(len(masks))
    assert distances.min() > 1e-3


@every_fusion
def test_different_sizes_are_refused(name: str) -> None:
    features = {"m0": torch.zeros(2, 2, 3, 2), "m1": torch.zeros(2, 3, 6, 4)}
    with pytest.raises(UserError, match=r"different sizes .*'m0': \(3, 2\), 'm1': \(6, 4\)"):
        make(name, 2)(features, torch.ones(2, 2).bool())


# What each computes


def test_concat_has_zero_blocks() -> None:
    features = draw(3)
    available = torch.tensor([[True, False, True]]).expand(B, 3)
    expected = torch.cat([features["m0"], torch.zeros(B, 3), features["m2"]], 1)
    assert torch.equal(make("concat", 3)(features, available), expected)


def test_sum_adds_the_available_projections() -> None:
    fusion, features = make("sum", 3), draw(3)
    available = torch.tensor([[True, False, True]]).expand(B, 3)
    expected = fusion.projections[0](features["m0"]) + fusion.projections[2](features["m2"])
    torch.testing.assert_close(fusion(features, available), expected)


@pytest.mark.parametrize("name", ["sum", "gated", "film"])
def test_the_order_of_the_modalities_does_not_matter(name: str) -> None:
    fusion, features, available = make(name, 3), draw(3), incomplete(3)
    expected = fusion(features, available)
    for order in permutations(range(3)):
        other = make(name, 3)
        for module in ("projections", "values", "gates", "scales", "shifts"):
            if hasattr(fusion, module):
                setattr(other, module, nn.ModuleList([getattr(fusion, module)[i] for i in order]))
        shuffled = {f"m{i}": features[f"m{i}"] for i in order}
        torch.testing.assert_close(other(shuffled, available[:, list(order)]), expected)


@every_count
def test_gated_of_one_modality_is_its_tanh(count: int) -> None:
    fusion, features = make("gated", count), draw(count)
    for i, x in enumerate(features.values()):
        only = torch.eye(count)[i].bool().expand(B, -1)
        torch.testing.assert_close(fusion(features, only), fusion.values[i](x).tanh())


def test_gates_of_two_modalities_are_a_sigmoid_of_their_difference() -> None:
    """The published form (eq. 4), with z a sigmoid."""
    fusion, features = make("gated", 2), draw(2)
    a, b = features.values()
    z = (fusion.gates[0](a) - fusion.gates[1](b)).sigmoid()
    expected = z * fusion.values[0](a).tanh() + (1 - z) * fusion.values[1](b).tanh()
    torch.testing.assert_close(fusion(features, torch.ones(B, 2).bool()), expected)


def test_gates_survive_half_precision() -> None:
    fusion = make("gated", 2).bfloat16()
    features = {m: x.bfloat16() for m, x in draw(2).items()}
    assert fusion(features, incomplete(2)).isfinite().all()


@every_count
def test_film_of_one_modality_is_unmodulated(count: int) -> None:
    fusion, features = make("film", count), draw(count)
    for i, x in enumerate(features.values()):
        only = torch.eye(count)[i].bool().expand(B, -1)
        torch.testing.assert_close(fusion(features, only), fusion.projections[i](x))


def test_film_modulates_each_by_the_mean_of_the_others() -> None:
    fusion, features = make("film", 3), draw(3)
    a, b, c = (f(x) for f, x in zip(fusion.projections, features.values(), strict=True))
    expected = []
    for i, (h, context) in enumerate(((a, (b + c) / 2), (b, (a + c) / 2), (c, (a + b) / 2))):
        expected.append((1 + fusion.scales[i](context)) * h + fusion.shifts[i](context))
    found = fusion(features, torch.ones(B, 3).bool())
    torch.testing.assert_close(found, torch.stack(expected).mean(0), rtol=1e-4, atol=1e-5)
