"""Noise: how often, how much, where, and that it is a pure function of a seed and a sample."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.base import DataModule
from mmrobust.data.damage import Kept
from mmrobust.data.noise import Clean, Gaussian, Salt, SplitNoise, UDMLv1, UDMLv2, in_pixel_units
from mmrobust.data.split import Key, Sample, Split
from mmrobust.evaluate import parse
from mmrobust.training.reevaluate import changed

OFF = {"wrap_negative": False, "same_pattern": False}
RNG = np.random.default_rng
GREY = np.full((3, 40, 50, 3), 128, dtype=np.uint8)  # three frames of a video
N = 20000


def levels(
    protocol: Clean, epoch: int = 0, seed: int = 0, split: str = "train", count: int = N
) -> np.ndarray:
    return SplitNoise(protocol, seed, split, count, ["a", "b"], frozenset()).levels(epoch)


def share(values: np.ndarray) -> list[float]:
    return (values > 0).mean(0).tolist()


# Levels


def test_v1_levels_stay_and_half_of_the_samples_are_clean() -> None:
    drawn = levels(UDMLv1(0.0, 10, OFF))
    assert set(np.unique(drawn)) == {0, *range(2, 12)}
    assert share(drawn) == pytest.approx([0.5 * 10 / 11] * 2, abs=0.01)
    assert (drawn.any(1)).sum() <= N // 2  # the others are clean in both
    assert (drawn.any(1)).mean() == pytest.approx(0.5 * (1 - 1 / 121), abs=0.005)
    counts = np.bincount(drawn[:, 0].astype(int), minlength=12)[2:] / N
    assert counts == pytest.approx(np.full(10, 0.5 / 11), abs=0.006)
    np.testing.assert_array_equal(drawn, levels(UDMLv1(0.0, 10, OFF), epoch=7))


def test_v2_levels_are_new_in_every_epoch_and_independent() -> None:
    first, second = (levels(UDMLv2(0.0, 10, 0.5, OFF), epoch) for epoch in (0, 1))
    assert set(np.unique(first)) == set(range(12))
    assert share(first) == pytest.approx([0.5 * 11 / 12] * 2, abs=0.01)
    for a, b in [(first[:, 0], first[:, 1]), (first[:, 0], second[:, 0])]:
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.03
    assert share(levels(UDMLv2(0.0, 10, 1.0, OFF))) == pytest.approx([11 / 12] * 2, abs=0.01)


@pytest.mark.parametrize("protocol", [UDMLv1(0.5, 10, OFF), UDMLv2(0.5, 10, 0.5, OFF)], ids=["v1", "v2"])
def test_the_first_share_of_the_epochs_is_clean(protocol: Clean) -> None:
    noisy = [bool(levels(protocol, epoch).any()) for epoch in range(10)]
    assert noisy == [False] * 5 + [True] * 5


def test_test_noise_has_one_level() -> None:
    drawn = levels(Gaussian(5.0, 0.5, OFF))
    assert set(np.unique(drawn)) == {0, 5}
    assert share(drawn) == pytest.approx([0.5, 0.5], abs=0.01)
    assert not levels(Gaussian(0.0, 0.5, OFF)).any()
    assert share(levels(Salt(10.0, 0.5, 0.1, {"level_is_probability": False}))) == pytest.approx(
        [0.5] * 2, abs=0.01
    )
    assert share(levels(Salt(10.0, 0.5, 0.1, {"level_is_probability": True}))) == pytest.approx(
        [0.05] * 2, abs=0.006
    )


@pytest.mark.parametrize("protocol", [UDMLv1(0.0, 9, OFF), UDMLv2(0.0, 9, 0.5, OFF), Gaussian(5, 0.5, OFF)])
def test_levels_follow_seed_and_split(protocol: Clean) -> None:
    first = levels(protocol)
    np.testing.assert_array_equal(first, levels(protocol))
    for other in (levels(protocol, seed=1), levels(protocol, split="test")):
        assert (first != other).any(1).mean() > 0.3


# Signals


def test_pixels_get_the_standard_deviation_of_their_level() -> None:
    for protocol, level, std in [
        (Gaussian(2, 0.5, OFF), 2, 20),
        (UDMLv2(0, 1, 0.5, OFF), 2, 20),
        (UDMLv1(0, 1, OFF), 4, 16),
    ]:
        noisy = protocol.apply(GREY, level, RNG(0), False)
        difference = noisy.astype(float) - 128
        assert (noisy.dtype, noisy.shape) == (np.uint8, GREY.shape)
        assert difference.std() == pytest.approx(std, rel=0.05)
        assert (noisy == noisy[..., :1]).all()  # the colours share it
        assert (noisy[0] != noisy[1]).any()  # frames do not
    assert (GREY == 128).all()


def test_both_ends_are_clipped_and_wrapping_is_an_option() -> None:
    black = np.zeros((40, 50), dtype=np.uint8)
    assert (UDMLv1(0, 1, OFF).apply(black, 3, RNG(0), False) == 0).mean() > 0.5
    wrapped = UDMLv1(0, 1, OFF | {"wrap_negative": True}).apply(black, 3, RNG(0), False)
    assert (wrapped > 200).mean() > 0.3
    x = np.zeros(4, dtype=np.uint8)
    values = np.array([-1.5, -30, -300, 300])
    assert in_pixel_units(x, lambda p: p + values, True).tolist() == [255, 226, 212, 255]
    assert in_pixel_units(x, lambda p: p + values).tolist() == [0, 0, 0, 255]


def test_level_11_of_v1_is_nothing_but_noise() -> None:
    other = np.full_like(GREY, 7)
    a, b = (UDMLv1(0, 1, OFF).apply(x, 11, RNG(0), False) for x in (GREY, other))
    np.testing.assert_array_equal(a, b)
    assert (np.isin(a, (0, 255))).mean() > 0.9
    spectrum = RNG(1).random((30, 40), dtype=np.float32)
    c, d = (UDMLv1(0, 1, OFF).apply(x, 11, RNG(0), True) for x in (spectrum, 2 * spectrum))
    np.testing.assert_array_equal(c, d)
    logarithm = np.log(c + 1e-7)
    assert np.isfinite(logarithm).all()
    assert logarithm.max() == pytest.approx(255)
    assert (c >= 0).all()


def test_v1_adds_to_the_logarithm_of_magnitudes() -> None:
    magnitude = np.exp(RNG(1).normal(0, 0.1, (100, 120))).astype(np.float32)
    noisy = UDMLv1(0, 1, OFF).apply(magnitude, 2, RNG(0), True)
    added = np.log(noisy + 1e-7) - np.log(magnitude.astype(float) + 1e-7)
    np.testing.assert_allclose(added, 2 * RNG(0).standard_normal((100, 120)), atol=1e-6)


def test_other_signals_are_noisy_in_their_own_range() -> None:
    x = RNG(1).normal(3, 2, (1, 200, 50)).astype(np.float32)
    noisy = Gaussian(1.0, 0.5, OFF).apply(x, 1, RNG(0), False)
    assert noisy.dtype == np.float32
    assert noisy.min() >= x.min() - 1e-5
    assert noisy.max() <= x.max() + 1e-5
    assert (noisy - x).std() == pytest.approx(10 / 255 * (x.max() - x.min()), rel=0.05)
    larger = Gaussian(1.0, 0.5, OFF).apply(1000 * x, 1, RNG(0), False)
    np.testing.assert_allclose(larger, 1000 * noisy, rtol=1e-3, atol=1)  # whatever the unit
    silent = np.zeros((5, 5), dtype=np.float32)
    np.testing.assert_array_equal(Gaussian(1.0, 0.5, OFF).apply(silent, 1, RNG(0), True), silent)


def test_salt_and_pepper() -> None:
    noisy = Salt(10.0, 0.5, 0.1, {"level_is_probability": False}).apply(GREY, 10, RNG(0), False)
    shares = [(noisy == value).mean() for value in (0, 128, 255)]
    assert shares == pytest.approx([0.05, 0.9, 0.05], abs=0.01)
    assert (noisy == noisy[..., :1]).all()
    released = Salt(5.0, 0.5, 0.1, {"level_is_probability": True}).apply(GREY, 5, RNG(0), False)
    assert (released != 128).mean() == pytest.approx(0.1, abs=0.02)


def test_the_released_pattern_is_the_same_for_all() -> None:
    protocol = UDMLv2(0, 1, 0.5, OFF | {"same_pattern": True})
    np.testing.assert_array_equal(*(protocol.apply(GREY, 3, RNG(seed), False) for seed in (0, 1)))
    fixed = np.random.RandomState(0).normal(0, 30, (3, 40, 50, 1))
    expected = np.rint(np.clip(128 + fixed, 0, 255))
    np.testing.assert_array_equal(protocol.apply(GREY, 3, RNG(0), False)[..., :1], expected)


# In a dataset


def data(*overrides: str) -> DataModule:
    small = ["data=synthetic", "data.num_train=64", "data.num_val=8", "data.num_test=40", "data.batch_size=8"]
    found: DataModule = construct(compose_config([*small, *overrides]).data)
    found.setup()
    return found


def test_without_noise_nothing_is_touched() -> None:
    split = data().splits["train"]
    assert split.noise is None
    raw = split.read(Key(0, 0))
    assert split.corrupt(raw, Key(0, 0)) is raw
    assert split[Key(0, 0)].noise_level is None


def test_the_batch_knows_the_levels_and_is_noisy_where_they_say() -> None:
    kinds = "data.kinds=[image,spectrogram,sequence,video,vector]"
    count = "data.num_modalities=5"
    noisy = data(kinds, count, "noise=udml_v1", "noise/pattern@noise.test=gaussian", "noise.test.level=3")
    clean = data(kinds, count)
    for split, epoch in (("train", 0), ("train", 15), ("val", 0), ("test", 0)):
        for index in range(8):
            a, b = (d.splits[split][Key(epoch, index)] for d in (clean, noisy))
            changed = {m: not torch.equal(a.inputs[m], b.inputs[m]) for m in a.inputs}
            assert changed == {m: level > 0 for m, level in b.noise_level.items()}
            assert all(x.dtype == torch.float32 and x.isfinite().all() for x in b.inputs.values())
    batch = next(iter(noisy.loader("test")))
    expected = noisy.splits["test"].noise_levels(0)[batch.index.numpy()]
    np.testing.assert_array_equal(batch.noise_level, expected.astype(np.float32))
    assert set(batch.noise_level.unique().tolist()) == {0, 3}
    assert not noisy.splits["train"].noise_levels(9).any()  # half of 20 epochs
    assert noisy.splits["train"].noise_levels(10).any()


def test_workers_and_order_do_not_matter() -> None:
    def seen(*overrides: str) -> dict[int, Any]:
        found = data("noise=udml_v2", "noise.train.start=0", *overrides)
        batches = list(found.loader("train", shuffle=True))
        return {int(i): (b.inputs["m1"][r], b.noise_level[r]) for b in batches for r, i in enumerate(b.index)}

    first, second = seen(), seen("data.workers=2", "seed=3")  # another order
    for index, (x, level) in first.items():
        assert torch.equal(x, second[index][0])
        assert torch.equal(level, second[index][1])
    other = seen("noise.seed=1")
    assert not all(torch.equal(x, other[i][0]) for i, (x, _) in first.items())


class Holes(Split):
    """A dataset of uint8 pixels in which a modality may not be on disk."""

    def __init__(self) -> None:
        self.ids, self.targets, self.present = ["x"], [0], np.array([[True, False]])

    def read(self, key: Key) -> Any:
        return {"a": GREY, "b": None, "label": 3}

    def finish(self, raw: Any, key: Key) -> Sample:
        return Sample({m: None if raw[m] is None else torch.from_numpy(raw[m]) for m in "ab"}, raw["label"])


def test_what_is_not_on_disk_stays_so() -> None:
    split = Holes()
    split.noise = SplitNoise(Gaussian(5, 1.0, OFF), 0, "test", 1, ["a", "b"], frozenset())
    sample = split[Key(0, 0)]
    assert sample.inputs["b"] is None
    assert sample.target == 3
    assert not torch.equal(sample.inputs["a"], torch.from_numpy(GREY))


def test_samples_left_out_do_not_change_the_noise_of_the_others() -> None:
    split = data("noise=udml_v1", "noise.train.start=0").splits["train"]
    kept = Kept(split, [3, 8, 20])
    assert kept[Key(0, 1)].noise_level == split[Key(0, 8)].noise_level
    assert torch.equal(kept[Key(0, 2)].inputs["m1"], split[Key(0, 20)].inputs["m1"])
    np.testing.assert_array_equal(kept.noise_levels(0), split.noise_levels(0)[[3, 8, 20]])


# The configuration


def test_a_method_may_bring_its_noise_and_the_user_has_the_last_word(tmp_path: Path) -> None:
    for name, text in {
        "method/noisy": "defaults: [override /noise@_global_.noise: udml_v2, _self_]\n_target_: mmrobust.methods.late.Late",
        "experiment/one": "# @package _global_\ndefaults: [override /method: noisy, _self_]",
        "experiment/two": "# @package _global_\ndefaults: [override /method: noisy, override /noise: udml_v1, _self_]",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)

    def train(*overrides: str) -> str:
        return compose_config(overrides, str(tmp_path)).data.noise.train._target_.rpartition(".")[2]

    choices = ["method=noisy", "experiment=one", "experiment=two"]
    assert [train(choice) for choice in choices] == ["UDMLv2", "UDMLv2", "UDMLv1"]
    assert [train(choice, "noise=none") for choice in choices] == ["Clean"] * 3


def test_an_evaluation_may_change_the_test_noise_alone() -> None:
    run = OmegaConf.create(
        OmegaConf.to_container(compose_config(["noise=udml_v2", "noise.seed=4"]), resolve=True)
    )
    before = json.dumps(OmegaConf.to_container(run.noise.train))
    _, changes = parse(["run=x", "noise/pattern@noise.test=gaussian", "noise.test.level=10"])
    new = changed(run, changes)
    assert (new.data.noise.test.level, new.noise.test.level, new.data.noise.seed) == (10, 10, 4)
    assert json.dumps(OmegaConf.to_container(new.data.noise.train)) == before
    with pytest.raises(Exception, match=r"noise\.train\.start cannot be changed"):
        parse(["run=x", "noise.train.start=0"])
