"""Who is absent: the frequencies that protocols promise, keyed and within what lies on disk."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from mmrobust.combinations import (
    all_combinations,
    combination_code,
)
from mmrobust.missing import MCAR, Complete, Fixed, Uniform, fingerprint, masks

N = 40_000
AUDIO_VISUAL = ("audio", "visual")
THREE = ("rgb", "depth", "ir")


def names(count: int) -> list[str]:
    return [f"m{i + 1}" for i in range(count)]


def everything(count: int, size: int = N) -> np.ndarray:
    return np.ones((size, count), dtype=bool)


# Protocols


@pytest.mark.parametrize(
    ("modalities", "rate"),
    [
        (AUDIO_VISUAL, 0.3),
        (AUDIO_VISUAL, 0.9),
        (THREE, 0.5),
        (THREE, {"rgb": 0.1, "depth": 0.6, "ir": 0.8}),
        (THREE, {"depth": 0.7}),
        (THREE, {"rgb": 1.0, "depth": 0.5, "ir": 0.5}),
        (AUDIO_VISUAL, 0.0),
    ],
    ids=str,
)
def test_mcar_takes_away_what_it_says(modalities: tuple[str, ...], rate: float | Mapping[str, float]) -> None:
    rates = np.array([rate.get(m, 0.0) if isinstance(rate, Mapping) else rate for m in modalities])
    kept = masks(MCAR(rate), modalities, 0, "train", everything(len(modalities)))
    assert kept.any(1).all()
    nothing = rates.prod()
    expected = (rates - nothing) / (1 - nothing)
    realised = 1 - kept.mean(0)
    assert (np.abs(realised - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / N)).all()


def test_mcar_modalities_go_missing_independently() -> None:
    """But for the draws that would leave nothing: P(combination) is the product over 1 - P(nothing)."""
    rate = {"rgb": 0.2, "depth": 0.5, "ir": 0.7}
    kept = masks(MCAR(rate), THREE, 0, "train", everything(3))
    for combination in all_combinations(THREE):
        product = np.prod([1 - rate[m] if m in combination else rate[m] for m in THREE])
        expected = product / (1 - 0.2 * 0.5 * 0.7)
        frequency = (kept == [m in combination for m in THREE]).all(1).mean()
        assert abs(frequency - expected) < 4.5 * np.sqrt(expected / N), combination


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_uniform_gives_every_combination_equally_often(count: int) -> None:
    kept = masks(Uniform(), names(count), 0, "train", everything(count))
    counts = combination_code(torch.from_numpy(kept)).bincount(minlength=2**count)
    expected = N / (2**count - 1)
    assert counts[0] == 0
    assert ((counts[1:] - expected).abs() <= 4.5 * expected**0.5).all()


def test_fixed_and_complete() -> None:
    kept = masks(Fixed(["ir", "rgb"]), THREE, 0, "train", everything(3, 50))
    assert (kept == [True, False, True]).all()
    assert masks(Complete(), THREE, 0, "train", everything(3, 50)).all()


@pytest.mark.parametrize("protocol", [Complete(), Uniform(), MCAR(0.6), Fixed(["depth"])], ids=repr)
def test_holes_on_disk_stay_holes(protocol: Complete) -> None:
    present = masks(Uniform(), THREE, 7, "holes", everything(3, 2000))
    kept = masks(protocol, THREE, 0, "train", present)
    assert not (kept & ~present).any()
    assert kept.any(1).all()
    wanted = masks(protocol, THREE, 0, "train", everything(3, 2000)) & present
    left = wanted.any(1)
    np.testing.assert_array_equal(kept[left], wanted[left])
    np.testing.assert_array_equal(kept[~left], present[~left])  # the protocol would leave nothing


def test_masks_do_not_depend_on_other_samples() -> None:
    """More samples, or holes in some, leave the masks of the others as they are."""
    large, small = (masks(MCAR(0.4), THREE, 0, "train", everything(3, size)) for size in (1000, 400))
    np.testing.assert_array_equal(large[:400], small)
    present = everything(3, 1000)
    present[::2, 0] = False
    np.testing.assert_array_equal(masks(MCAR(0.4), THREE, 0, "train", present)[1::2], large[1::2])


def test_seed_and_split_give_other_masks() -> None:
    first, again, seed, split = (
        masks(MCAR(0.5), THREE, s, name, everything(3, 500))
        for s, name in ((0, "train"), (0, "train"), (1, "train"), (0, "test"))
    )
    assert fingerprint(first) == fingerprint(again)
    assert len({fingerprint(m) for m in (first, seed, split)}) == 3


def test_fingerprint_sees_every_entry_and_the_shape() -> None:
    changed = everything(3, 500)
    changed[499, 2] = False
    assert fingerprint(everything(3, 500)) != fingerprint(changed)
    assert fingerprint(everything(3, 8)) != fingerprint(everything(2, 12))


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (MCAR(1.5), "rate rate=1.5 is not in [0, 1]"),
        (MCAR({"audio": -0.1, "visual": 0.5}), "rate audio=-0.1 is not in [0, 1]"),
        (MCAR({"audi": 0.3}), "rate of 'audi', but the modalities are audio, visual"),
        (MCAR(1), "every modality has rate 1"),
        (MCAR({"audio": 1, "visual": 1}), "every modality has rate 1"),
        (Fixed([]), "combination is empty"),
        (Fixed(["audio", "depth"]), "combination names 'depth', but the modalities are audio, visual"),
    ],
    ids=str,
)
def test_check_says_what_is_wrong(protocol: Complete, message: str) -> None:
    (problem,) = protocol.check(AUDIO_VISUAL)
    assert message in problem


@pytest.mark.parametrize(
    "protocol",
    [
        Complete(),
        Uniform(),
        MCAR(0),
        MCAR(0.99),
        MCAR({"audio": 1.0}),
        Fixed(["visual"]),
        Fixed(AUDIO_VISUAL),
    ],
    ids=repr,
)
def test_check_accepts(protocol: Complete) -> None:
    assert protocol.check(AUDIO_VISUAL) == []
