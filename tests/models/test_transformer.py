"""Transformers: absent tokens never matter; rows with none present stay finite."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmrobust.combinations import all_combinations, combination_masks
from mmrobust.errors import UserError
from mmrobust.models.transformer import Block, ModalityTransformer


def block(dropout: float = 0.0) -> Block:
    torch.manual_seed(0)
    return Block(8, 2, 16, dropout)


def fusion(count: int) -> ModalityTransformer:
    torch.manual_seed(0)
    widths = {f"m{i}": i + 2 for i in range(count)}
    return ModalityTransformer(widths, width=8, depth=2, heads=2, mlp_width=16, dropout=0.0)


def features(count: int, *places: int, size: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {f"m{i}": torch.randn(size, i + 2, *places) for i in range(count)}


def test_block_is_its_equations() -> None:
    """Attention and layers written out, head by head."""
    layer = block()
    x = torch.randn(3, 5, 8)
    query, key, value = layer.query_key_value(layer.attention_norm(x)).split(8, 2)
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        scores = query[..., h] @ key[..., h].transpose(1, 2) / 4**0.5
        heads.append(scores.softmax(2) @ value[..., h])
    attended = x + layer.projection(torch.cat(heads, 2))
    hidden = layer.mlp[0](layer.mlp_norm(attended))
    expected = attended + layer.mlp[3](torch.nn.functional.gelu(hidden))
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("content", [0.0, 1e6, torch.nan])
def test_absent_tokens_are_left_out(content: float) -> None:
    """Whatever they hold, the others come out as if the absent tokens had not been there."""
    layer = block()
    tokens = torch.randn(2, 5, 8)
    present = torch.tensor([[True, False, True, True, False]] * 2)
    hidden = torch.where(present[..., None], tokens, content)
    torch.testing.assert_close(layer(hidden, present)[:, present[0]], layer(tokens[:, present[0]]))


def test_a_row_without_tokens_is_finite() -> None:
    layer = block()
    tokens = torch.randn(2, 3, 8, requires_grad=True)
    present = torch.tensor([[True, True, False], [False, False, False]])
    out = layer(tokens, present)
    out.sum().backward()
    assert out.isfinite().all()
    assert tokens.grad is not None
    assert tokens.grad.isfinite().all()
    assert (tokens.grad[1] == 0).all()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    torch.testing.assert_close(out[:1], layer(tokens[:1], present[:1]))


def test_dropout_acts_in_training_only() -> None:
    layer, tokens = block(dropout=0.5), torch.randn(2, 3, 8)
    assert not torch.equal(layer(tokens), layer(tokens))
    layer.eval()
    assert torch.equal(layer(tokens), layer(tokens))
    torch.testing.assert_close(layer(tokens), block()(tokens))


def test_heads_divide_the_width() -> None:
    with pytest.raises(UserError, match=r"3 attention heads do not divide tokens of width 8; .* as 9"):
        Block(8, 3, 16, 0.0)


@pytest.mark.parametrize("places", [(), (2, 3)], ids=["vectors", "maps"])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_fusion_under_absence(count: int, places: tuple[int, ...]) -> None:
    """Hidden features neither change the result nor get a gradient; rows do not see each other."""
    network, names = fusion(count), [f"m{i}" for i in range(count)]
    available = combination_masks(all_combinations(names), names)
    first = features(count, *places, size=len(available))
    second = {
        m: torch.where(available[:, i].reshape(-1, *[1] * (1 + len(places))), x, torch.nan)
        for i, (m, x) in enumerate(first.items())
    }
    leaves = {m: x.clone().requires_grad_() for m, x in second.items()}
    fused = network(leaves, available)
    assert fused.shape == (len(available), 8, *places)
    torch.testing.assert_close(fused, network(first, available))
    fused.pow(2).sum().backward()
    for i, x in enumerate(leaves.values()):
        assert x.grad is not None
        assert (x.grad[~available[:, i]] == 0).all()
        assert (x.grad[available[:, i]].flatten(1).abs().sum(1) > 0).all()
    row = network({m: x[-1:] for m, x in first.items()}, available[-1:])
    torch.testing.assert_close(fused[-1:], row)


def test_maps_are_fused_place_by_place() -> None:
    network, maps = fusion(2), features(2, 2, 3)
    available = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    fused = network(maps, available)
    alone = network({m: x[:, :, 1, 2] for m, x in maps.items()}, available)
    torch.testing.assert_close(fused[:, :, 1, 2], alone)


def test_tokens_say_which_modality_they_are() -> None:
    """Of one content in two modalities, it matters whose it is, even with the same projection."""
    torch.manual_seed(0)
    network = ModalityTransformer({"a": 3, "b": 3}, width=8, depth=1, heads=2, mlp_width=16, dropout=0.0)
    network.projections[1].load_state_dict(network.projections[0].state_dict())
    x = {m: torch.ones(2, 3) for m in ("a", "b")}
    first, second = network(x, torch.tensor([[True, False], [False, True]]))
    assert not torch.allclose(first, second, atol=1e-4)
    with torch.no_grad():
        network.which[1] = network.which[0]
    first, second = network(x, torch.tensor([[True, False], [False, True]]))
    torch.testing.assert_close(first, second)
