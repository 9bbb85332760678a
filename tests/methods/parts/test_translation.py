"""Cross translation and hallucinations against what they are defined as."""

from __future__ import annotations

import pytest
import torch

from mmrobust.methods.parts.adaptation import comparable, labelled
from mmrobust.methods.parts.translation import CrossTranslation, Hallucination, Layer


def make_streams(*places: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {m: torch.randn(5, 4, *places, generator=generator) for m in ("a", "b", "c")}


@pytest.mark.parametrize("places", [(), (6, 6)])
def test_joint_representations(places: tuple[int, ...]) -> None:
    """J^(m)[n] = B_n(f_m), and J_1[n] is their mean over the streams."""
    network = CrossTranslation(["a", "b", "c"], 4, maps=bool(places), translate=True).eval()
    streams = make_streams(*places)
    joints = network(streams)
    assert joints.shape == (4, 5, 12, *places)
    for i, m in enumerate(streams):
        for n, block in enumerate(network.blocks.values()):
            torch.testing.assert_close(joints[1 + i, :, 4 * n : 4 * n + 4], block(streams[m]))
    torch.testing.assert_close(joints[0], joints[1:].mean(0))


def test_streams_share_the_blocks() -> None:
    """Every stream reaches every slot; in a plain concatenation only its own, by as many parameters."""
    counts = []
    for translate in (True, False):
        network = CrossTranslation(["a", "b", "c"], 4, maps=False, translate=translate).eval()
        counts.append(sum(p.numel() for p in network.parameters()))
        streams = make_streams()
        before = network(streams)[0]
        streams["b"] = streams["b"] + 1
        changed = (network(streams)[0] != before).unflatten(1, (3, 4)).any(2).any(0)
        assert changed.tolist() == ([True] * 3 if translate else [False, True, False])
    assert counts[0] == counts[1]


def test_a_shared_trunk_runs_once() -> None:
    seen: list[int] = []
    trunk, other = Layer(3, 4, maps=False), Layer(3, 6, maps=False)
    trunk.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    network = Hallucination({"b": trunk, "c": trunk, "d": other}, lambda x: x, 5)
    restored = network(torch.randn(7, 3))
    assert seen == [7]
    assert {n: tuple(x.shape) for n, x in restored.items()} == dict.fromkeys("bcd", (7, 5))


def test_rows_that_are_compared() -> None:
    rows = torch.tensor([True, False, True])
    maps = torch.randn(3, 2, 8, 8)
    assert comparable(maps, rows, 4).shape == (2, 32)
    torch.testing.assert_close(comparable(maps, rows, 4)[1, 0], maps[2, 0, :2, :2].mean())
    assert torch.equal(comparable(maps[:, :, 0, 0], rows, 4), maps[[0, 2], :, 0, 0])
    places = torch.zeros(3, 8, 8, dtype=torch.bool)
    places[1, 2, 3] = True
    assert torch.equal(labelled(maps, places), maps[1, :, 2, 3][None])
