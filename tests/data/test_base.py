"""What all datasets share: keyed order over ranks and workers, masks, held-out samples, errors."""

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmrobust import keyed
from mmrobust.data.base import DataModule
from mmrobust.data.held_out import hold_out
from mmrobust.data.loading import KeyedSampler
from mmrobust.data.noise import Clean
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Key, Sample, Split
from mmrobust.errors import UserError
from mmrobust.missing import MCAR, Complete, Fixed, Uniform
from mmrobust.testing import check_dataset

SPEC = DataSpec("classification", 3, 20, {"a": Modality("vector", (2,)), "b": Modality("vector", (1,))})


class Numbers(Split):
    """Inputs that tell which sample, which epoch and which steps they went through."""

    def __init__(self, name: str, size: int, holes: bool) -> None:
        self.ids = [f"{name}{i}" for i in range(size)]
        self.targets = [i % 3 for i in range(size)]
        self.present = np.ones((size, 2), dtype=bool)
        self.present[::3, 1] = not holes

    def read(self, key: Key) -> list[float]:
        return [float(key.index)]

    def augment(self, raw: list[float], key: Key) -> list[float]:
        return [*raw, key.epoch + keyed.uniforms(1, "augment", key.epoch, key.index)[0]]

    def corrupt(self, raw: list[float], key: Key) -> list[float]:
        return [*raw, -1.0]

    def finish(self, raw: list[float], key: Key) -> Sample:
        index, augmented, corrupted = raw
        b = torch.tensor([corrupted]) if self.present[key.index, 1] else None
        return Sample(
            {"a": torch.tensor([index, augmented]).float(), "b": b}, self.targets[key.index], {"b": 0.5}
        )


class Data(DataModule):
    def __init__(self, sizes: dict[str, int], holes: bool, **base: Any) -> None:
        super().__init__(**base)
        self.sizes, self.holes = sizes, holes

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        splits: dict[str, Split] = {
            name: Numbers(name, size, self.holes) for name, size in self.sizes.items()
        }
        return replace(SPEC, num_train=self.sizes["train"]), splits


def make(
    train: Complete | None = None,
    test: Complete | None = None,
    sizes: tuple[int, ...] = (20, 7, 10),
    **keys: Any,
) -> Data:
    base = {
        "root": "",
        "batch_size": 6,
        "workers": 0,
        "seed": 0,
        "run_seed": 0,
        "corrupt": "error",
        "holes": False,
        "noise": {"train": Clean(), "test": Clean(), "seed": 0},
    }
    base["missing"] = {"train": train or Complete(), "test": test or Complete(), "seed": 0}
    data = Data(dict(zip(("train", "val", "test"), sizes, strict=False)), **(base | keys))
    data.setup()
    return data


def keys(length: int, epoch: int = 0, **given: Any) -> list[tuple[int, int]]:
    sampler = KeyedSampler(length, **({"seed": 0, "shuffle": True, "rank": 0, "world": 1} | given))
    sampler.set_epoch(epoch)
    found = [(key.epoch, key.index) for key in sampler]
    assert len(sampler) == len(found)
    return found


def indices(*args: Any, **given: Any) -> list[int]:
    return [index for _, index in keys(*args, **given)]


# Order


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    order = indices(50, 3)
    assert sorted(order) == list(range(50))
    assert order == indices(50, 3)
    assert len({tuple(indices(50, epoch, seed=seed)) for seed in (0, 1) for epoch in (0, 1, 3)}) == 6
    assert {epoch for epoch, _ in keys(50, 3)} == {3}


def test_evaluation_is_in_order_and_the_same_in_every_epoch() -> None:
    assert keys(5, 3, shuffle=False) == [(0, i) for i in range(5)]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_the_ranks_nth_batches_together_are_one_process_nth_batch(world: int) -> None:
    size = 12
    whole = indices(50, 2, multiple=size)
    ranks = [indices(50, 2, multiple=size, world=world, rank=rank) for rank in range(world)]
    assert len(whole) == 48  # the incomplete batch is dropped
    each = size // world
    for n in range(len(whole) // size):
        together = [index for rank in ranks for index in rank[n * each : (n + 1) * each]]
        assert sorted(together) == sorted(whole[n * size : (n + 1) * size])
    assert {len(rank) for rank in ranks} == {48 // world}


@pytest.mark.parametrize("length", [1, 2, 7, 8])
@pytest.mark.parametrize("world", [2, 3])
def test_nothing_is_repeated_in_evaluation(length: int, world: int) -> None:
    ranks = [indices(length, shuffle=False, world=world, rank=rank) for rank in range(world)]
    assert sorted(index for rank in ranks for index in rank) == list(range(length))


# Batches


def contents(data: Data, split: str = "train", epoch: int = 0, *, shuffle: bool = True) -> list[list[Any]]:
    loader = data.loader(split, shuffle=shuffle)
    loader.sampler.set_epoch(epoch)
    return [
        [b.index.tolist(), b.inputs["a"].tolist(), b.available.tolist(), b.target.tolist()] for b in loader
    ]


def test_a_batch() -> None:
    data = make(holes=True)
    (first, second) = data.test_dataloader()
    assert first.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert second.ids == ["test6", "test7", "test8", "test9"]
    assert first.available.tolist() == [[True, i % 3 != 0] for i in range(6)]
    assert first.target.tolist() == [0, 1, 2, 0, 1, 2]
    assert first.inputs["a"][:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert first.inputs["b"].shape == (6, 1)
    assert first.inputs["b"][1].item() == -1  # went through corrupt
    assert first.noise_level.tolist() == [[0, 0.5]] * 6
    assert (first.inputs["a"].dtype, first.target.dtype, first.noise_level.dtype) == (
        torch.float32,
        torch.int64,
        torch.float32,
    )


def test_the_kit_accepts_it() -> None:
    check_dataset(make(Uniform(), MCAR(0.5), holes=True))


def test_training_drops_the_incomplete_batch_and_follows_the_run_seed() -> None:
    sizes = [len(index) for index, *_ in contents(make())]
    assert sizes == [6, 6, 6]
    assert contents(make()) == contents(make())
    assert contents(make()) != contents(make(run_seed=1))
    assert contents(make(), shuffle=False) == contents(make(run_seed=1), shuffle=False)


def test_epochs_augment_anew() -> None:
    data = make()
    first, again, second = (
        {i: x for index, a, *_ in contents(data, epoch=epoch) for i, (_, x) in zip(index, a, strict=True)}
        for epoch in (0, 0, 1)
    )
    assert first == again
    assert all(0 <= x < 1 for x in first.values())
    assert all(1 <= x < 2 for x in second.values())  # the sample saw the epoch


@pytest.mark.slow
def test_workers_change_nothing() -> None:
    alone, helped = make(Uniform(), holes=True), make(Uniform(), holes=True, workers=2)
    loader = helped.loader("train", shuffle=True)
    for epoch in (0, 1, 5):  # workers that persist hear of the epoch, too
        loader.sampler.set_epoch(epoch)
        found = [
            [b.index.tolist(), b.inputs["a"].tolist(), b.available.tolist(), b.target.tolist()]
            for b in loader
        ]
        assert found == contents(alone, epoch=epoch)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_batch_size(world: int) -> None:
    whole = [index for index, *_ in contents(make())]
    for n, expected in enumerate(whole):
        together = []
        for rank in range(world):
            data = make()
            data.trainer = SimpleNamespace(global_rank=rank, world_size=world)  # type: ignore[assignment]
            together += contents(data)[n][0]
        assert sorted(together) == sorted(expected)


# What is missing


def test_train_and_test_have_their_own_protocols() -> None:
    data = make(Fixed(["a"]), Fixed(["b"]))
    assert (data.masks["train"] == [True, False]).all()
    assert (data.masks["val"] == [False, True]).all()
    assert (data.masks["test"] == [False, True]).all()
    for split, expected in (("train", [True, False]), ("val", [False, True]), ("test", [False, True])):
        assert next(iter(data.loader(split))).available.tolist() == [expected] * 6


def test_holes_stay_holes() -> None:
    data = make(Uniform(), sizes=(300, 30, 30), holes=True)
    masks = data.masks["train"]
    assert not masks[::3, 1].any()
    assert masks[1::3, 1].any()
    assert (data.masks["test"] == data.splits["test"].present).all()


def test_masks_follow_the_seed_of_the_protocol_alone() -> None:
    def masks(missing_seed: int, **given: Any) -> np.ndarray:
        missing = {"train": Uniform(), "test": Complete(), "seed": missing_seed}
        return make(sizes=(200, 20, 20), **given, missing=missing).masks["train"]

    np.testing.assert_array_equal(masks(0), masks(0, run_seed=5, seed=5, batch_size=2))
    assert (masks(0) != masks(1)).any()


# Errors


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (Fixed(["c"]), None, r"missing\.train: combination names 'c', but the modalities are a, b"),
        (None, MCAR(1.5), r"missing\.test: rate rate=1\.5 is not in \[0, 1\]"),
    ],
)
def test_a_protocol_that_does_not_fit(train: Complete | None, test: Complete | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(train, test)


def test_a_sample_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Data) -> tuple[DataSpec, dict[str, Split]]:
        spec, splits = original(self)
        splits["val"].present[4] = False
        return spec, splits

    original: Callable[[Data], Any] = Data.load
    monkeypatch.setattr(Data, "load", load)
    with pytest.raises(UserError, match="'val4' of split 'val' has no modality at all"):
        make()


def test_a_batch_larger_than_the_training_split() -> None:
    data = make(batch_size=21)
    with pytest.raises(UserError, match=r"20 samples, fewer than data\.batch_size=21; set .* at most 20"):
        data.train_dataloader()
    assert len(next(iter(data.test_dataloader()))) == 10  # in evaluation it is just one batch


def test_a_batch_that_does_not_divide_over_the_ranks() -> None:
    data = make(batch_size=7)
    data.trainer = SimpleNamespace(global_rank=0, world_size=2)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"data\.batch_size=7 .* does not divide by 2; try 8"):
        data.train_dataloader()


def test_no_validation_split() -> None:
    data = make()
    del data.splits["val"]
    assert data.val_dataloader() == []


# The description


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        replace(
            SPEC,
            task="segmentation",
            classes=("x", "y", "z"),
            ignore_index=255,
            class_weights=(1.0, 0.5, 2.0),
        ),
        replace(SPEC, metrics=("presentation_attack",), primary="acer"),
    ],
)
def test_spec_round_trip(spec: DataSpec) -> None:
    plain = json.loads(json.dumps(spec.to_dict()))
    again = DataSpec.from_dict(plain)
    assert again == spec
    assert list(again.modalities) == list(spec.modalities)
    assert isinstance(again.modalities["a"].shape, tuple)


def test_fingerprint() -> None:
    """Of the data: not of what is missing of it, nor of how it is read."""
    expected = make().fingerprint
    assert make(Uniform(), batch_size=2, run_seed=3).fingerprint == expected
    assert make(sizes=(21, 7, 10)).fingerprint != expected


# Holding out


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 0.5])
def test_hold_out_is_stratified(share: float) -> None:
    targets = np.repeat([0, 1, 2], [100, 40, 20])
    kept, held = hold_out(targets, share, 0)
    assert sorted([*kept, *held]) == list(range(160))
    counts = np.bincount(targets[held], minlength=3)
    assert counts.tolist() == [round(share * n) for n in (100, 40, 20)]


def test_hold_out_follows_the_seed_alone() -> None:
    targets = np.arange(200) % 4
    first, again, other = (hold_out(targets, 0.2, seed)[1] for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()
    assert hold_out(targets.tolist(), 0.2, 0)[1].tolist() == first.tolist()
    assert (np.diff(first) > 0).all()
    assert len(np.intersect1d(first, other)) < 20  # 8 are expected of 40


@pytest.mark.parametrize("name", ["average", "worst", "full", "available", "a+b", "a/b"])
def test_names_that_results_use(name, monkeypatch):
    spec = replace(SPEC, modalities={"a": SPEC.modalities["a"], name: SPEC.modalities["b"]})
    monkeypatch.setattr(Data, "load", lambda self: (spec, {}))
    with pytest.raises(UserError, match="a modality cannot be called"):
        make()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_input_that_is_no_number_is_refused_and_left_out(monkeypatch, value):
    finish = Numbers.finish

    def bad(self: Numbers, raw: list[float], key: Key) -> Sample:
        sample = finish(self, raw, key)
        if self.ids[key.index] == "val3":
            sample.inputs["a"][0] = value  # type: ignore[index]
        return sample

    monkeypatch.setattr(Numbers, "finish", bad)
    with pytest.raises(UserError, match="sample val3: its a holds NaN or infinity; mend it or leave it out"):
        list(make().loader("val"))
    assert make(corrupt="skip").skipped == {"val": ["val3"]}
