"""What every dataset must fulfil."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from mmrobust.data.base import DataModule
from mmrobust.data.spec import KINDS
from mmrobust.data.split import Key, Split
from mmrobust.tasks.registry import build_task


def check_dataset(data: DataModule) -> None:
    """Check a dataset: what it declares, what it gives, that a sample is a function of its key."""
    for _, check in dataset_checks(data):
        check()


def dataset_checks(data: DataModule) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks of a dataset, each with what it shows."""
    data.setup()
    yield "its splits have names, sizes and ids of their own", partial(_check_splits, data)
    for name, split in data.splits.items():
        yield (
            f"samples of {name} are as declared, and functions of their key",
            partial(_check_samples, data, split),
        )
    yield "batches are the same in every pass, and a pass over test is exact", partial(_check_passes, data)


def _check_splits(data: DataModule) -> None:
    spec = data.spec
    assert {"train", "test"} <= set(data.splits), f"splits are {list(data.splits)}; train and test are needed"
    assert spec.num_train == len(data.splits["train"]), "spec.num_train is not the size of the training split"
    for m, modality in spec.modalities.items():
        assert modality.kind in KINDS, f"{m} is of kind {modality.kind!r}; known are {', '.join(KINDS)}"
    owner: dict[str, str] = {}
    for name, split in data.splits.items():
        assert len(set(split.ids)) == len(split.ids) > 0, f"split {name!r} is empty or has an id twice"
        assert split.present.shape == (len(split), len(spec.modalities)), (
            f"present of {name!r} is not (samples, modalities)"
        )
        for sample_id in split.ids:
            assert owner.setdefault(sample_id, name) == name, (
                f"{sample_id!r} is in {owner[sample_id]!r} and {name!r}"
            )


def _check_samples(data: DataModule, split: Split) -> None:
    task = build_task(data.spec)
    for key in (Key(0, 0), Key(0, len(split) - 1), Key(3, len(split) // 2)):
        first, second = split[key], split[key]
        for i, (m, modality) in enumerate(data.spec.modalities.items()):
            a, b = first.inputs[m], second.inputs[m]
            assert (a is None) == (not split.present[key.index, i]), f"{m} of {key} is not as present says"
            if a is None or b is None:
                continue
            dtype = modality.traits.dtype
            assert a.dtype == dtype, f"{m} is {a.dtype}, not {dtype}".replace("torch.", "")
            assert tuple(a.shape) == tuple(modality.shape), (
                f"{m} has shape {tuple(a.shape)}, not {modality.shape}"
            )
            assert a.isfinite().all(), f"{m} of sample {split.ids[key.index]!r} is not finite"
            assert torch.equal(a, b), f"{m}: the same key {key} gave two samples"
        task.check_target(torch.as_tensor(first.target))


def _check_passes(data: DataModule) -> None:
    for name in data.splits:
        batches = [next(iter(data.loader(name))) for _ in range(2)]
        for m in data.spec.modalities:
            assert torch.equal(batches[0].inputs[m], batches[1].inputs[m]), (
                f"{name!r}: two passes differ in {m}"
            )
        assert batches[0].available.any(1).all(), f"{name!r}: a sample has nothing available"
    seen = torch.cat([batch.index for batch in data.loader("test")])
    assert torch.equal(seen.sort().values, torch.arange(len(data.splits["test"]))), (
        "a pass over test is not exact"
    )
