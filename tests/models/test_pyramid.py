"""Pyramids, gated sums under absence, the context module."""

import pytest
import torch
from torch import Tensor

from mmrobust.models.fusion import Concat
from mmrobust.models.pyramid import (
    Context,
    GatedContext,
    GatedSum,
    Levelwise,
    Pyramid,
    Skips,
    SqueezeExcitation,
    by_level,
    deepest,
    with_deepest,
)


def maps(*, size: int = 4, width: int = 3, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {m: torch.randn(4, width, size, size, generator=generator) for m in ("a", "b", "c")}


ABSENT = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [1, 0, 1]]).bool()


def test_the_deepest_map_of_a_pyramid_and_a_feature_itself() -> None:
    pyramid = Pyramid(torch.ones(1, 2, 1, 1), (torch.zeros(1, 1, 2, 2),))
    assert deepest(pyramid) is pyramid.deep
    changed = with_deepest(pyramid, pyramid.deep + 1)
    assert changed.deep.sum() == 4
    assert changed.skips is pyramid.skips
    feature = torch.ones(2, 3)
    assert deepest(feature) is feature
    assert with_deepest(feature, feature + 1).sum() == 12


def test_a_gate_is_a_number_for_each_channel_and_leaves_zero_zero() -> None:
    gate = SqueezeExcitation(3).eval()
    x = torch.randn(2, 3, 4, 5)
    ratio = gate(x) / x
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    assert ((ratio > 0) & (ratio < 1)).all()
    assert torch.equal(gate(torch.zeros_like(x)), torch.zeros_like(x))


def test_an_absent_modality_adds_exactly_nothing() -> None:
    fuse, features = GatedSum(3, 3), maps()
    fused = fuse(features, ABSENT)
    expected = torch.stack([gate(x) for gate, x in zip(fuse.gates, features.values(), strict=True)], 1)
    torch.testing.assert_close(fused, torch.where(ABSENT[:, :, None, None, None], expected, 0).sum(1))
    assert torch.equal(fused[1], fuse.gates[0](features["a"])[1])


@pytest.mark.parametrize("kind", [Skips, Levelwise, GatedContext])
def test_absent_content_changes_neither_result_nor_gradient(kind: type) -> None:
    torch.manual_seed(0)
    pyramids = {m: Pyramid(x, (maps(size=8, seed=1)[m],)) for m, x in maps().items()}
    hidden = {
        m: by_level(lambda level, i=i: torch.where(ABSENT[:, i, None, None, None], level["x"], 1e3), {"x": p})
        for i, (m, p) in enumerate(pyramids.items())
    }
    widths = {"a": 3, "b": 3, "c": 3}
    skips = Skips(3, [3])
    module = {
        Skips: lambda: skips,
        Levelwise: lambda: Levelwise(Concat(widths), skips),
        GatedContext: lambda: GatedContext(widths, bins=[1, 2], width=None, norm="batch"),
    }[kind]().eval()
    found = []
    for features in (pyramids, hidden):
        inputs = {
            m: Pyramid(p.deep.detach().requires_grad_(), tuple(s.detach().requires_grad_() for s in p.skips))
            for m, p in features.items()
        }
        if kind is GatedContext:
            out = [module({m: p.deep for m, p in inputs.items()}, ABSENT)]
        elif kind is Skips:
            out = list(module(next(iter(inputs.values())).deep * 0, inputs, ABSENT).skips)
        else:
            fused = module(inputs, ABSENT)
            out = [fused.deep, *fused.skips]
        module.zero_grad()
        torch.stack([x.sum() for x in out]).sum().backward()
        gradients = [p.grad.clone() for p in module.parameters() if p.grad is not None]
        found.append([x.detach() for x in out] + gradients)
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_modalities_of_other_widths_are_projected_without_a_bias() -> None:
    fuse = GatedContext({"a": 3, "b": 5}, bins=[1, 5], width=7, norm="group").eval()
    features = {"a": torch.randn(2, 3, 6, 6), "b": torch.randn(2, 5, 6, 6)}
    assert fuse(features, torch.ones(2, 2).bool()).shape == (2, 7, 6, 6)
    assert all(p.bias is None for p in fuse.projections if hasattr(p, "bias"))


def test_context_is_the_mean_over_all_places_beside_the_map() -> None:
    """One bin, identity-like weights: what comes out can be computed by hand."""
    context = Context(1, bins=[1], width=1, norm="batch").eval()
    with torch.no_grad():
        context.branches[0][0].weight.fill_(1)  # type: ignore[index, union-attr, operator]
        context.merge[0].weight.copy_(torch.tensor([1.0, 10.0]).reshape(1, 2, 1, 1))  # type: ignore[operator]
    x = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])  # mean 4
    torch.testing.assert_close(context(x), x + 40, rtol=1e-4, atol=1e-3)


def test_the_width_behind_the_context_is_at_most_512_unless_told() -> None:
    assert Context(2048, bins=[], width=None, norm="batch").width == 512
    assert Context(64, bins=[1], width=None, norm="batch").width == 64
    assert Context(64, bins=[1], width=128, norm="batch").width == 128
