"""From maps to pixels: sizes, what is predicted on the way, learned enlarging at its start."""

import pytest
import torch

from mmrobust.models.decoder import Decoder, NonBottleneck1D, Upsample
from mmrobust.models.pyramid import Pyramid


def decoder(skips: list[int], stride: int, size: tuple[int, int]) -> Decoder:
    return Decoder(16, skips, stride=stride, num_classes=5, size=size, widths=[8, 6], blocks=1, norm="batch")


def pyramid(skips: list[int], strides: list[int], size: tuple[int, int], rows: int = 2) -> Pyramid:
    places = [[-(-n // stride) for n in size] for stride in strides]
    deep = torch.randn(rows, 16, *places[0])
    return Pyramid(deep, tuple(torch.randn(rows, w, *p) for w, p in zip(skips, places[1:], strict=True)))


@pytest.mark.parametrize("size", [(32, 64), (33, 47), (480, 640)])
def test_sizes_whether_or_not_they_divide(size: tuple[int, int]) -> None:
    skips, strides = [7, 5, 3], [32, 16, 8, 4]
    features = pyramid(skips, strides, size, rows=1)
    network = decoder(skips, 4, size).eval()
    with torch.no_grad():
        assert network(features).logits.shape == (1, 5, *size)


def test_training_also_predicts_at_every_level_on_the_way() -> None:
    skips, size = [7, 5, 3], (64, 96)
    network = decoder(skips, 4, size).train()
    predicted = network(pyramid(skips, [32, 16, 8, 4], size))
    assert predicted.logits.shape == (2, 5, 64, 96)
    assert [tuple(x.shape[2:]) for x in predicted.side] == [(2, 3), (4, 6), (8, 12)]
    torch.stack([x.sum() for x in (predicted.logits, *predicted.side)]).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_a_single_map_is_enlarged_too() -> None:
    network = decoder([], 16, (32, 32)).train()
    predicted = network(torch.randn(2, 16, 2, 2))
    assert predicted.logits.shape == (2, 5, 32, 32)
    assert predicted.side == ()


def test_skips_matter() -> None:
    features = pyramid([3], [8, 4], (32, 32))
    network = decoder([3], 4, (32, 32)).eval()
    other = features._replace(skips=(features.skips[0] + 1,))
    assert not torch.allclose(network(features).logits, network(other).logits)


def test_enlarging_begins_as_the_binomial_filter() -> None:
    """A single bright place spreads as by bilinear interpolation; a plain map stays plain inside."""
    up = Upsample(2)
    x = torch.zeros(1, 2, 3, 3)
    x[0, 1, 1, 1] = 16
    bright = up(x, (6, 6))
    assert torch.equal(bright[0, 0], torch.zeros(6, 6))
    row = torch.tensor([0.0, 1, 3, 3, 1, 0])
    torch.testing.assert_close(bright[0, 1], torch.outer(row, row))
    plain = up(torch.ones(1, 2, 3, 3), (6, 6))
    torch.testing.assert_close(plain[:, :, 1:-1, 1:-1], torch.ones(1, 2, 4, 4))
    bilinear = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(bright, bilinear)


def test_a_block_is_residual() -> None:
    block = NonBottleneck1D(4, "batch").eval()
    x = torch.randn(2, 4, 5, 6)
    for layer in block.layers:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)
    torch.testing.assert_close(block(x), x.relu())
