"""Made-up data: a description, and batches of random numbers for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmrobust.batch import Batch
from mmrobust.combinations import draw_combinations
from mmrobust.data.spec import KINDS, DataSpec, Modality
from mmrobust.tasks.registry import build_task


def describe_data(
    *,
    num_modalities: int = 2,
    kinds: Sequence[str] = ("image",),
    task: str = "classification",
    num_classes: int = 4,
) -> DataSpec:
    """The description of made-up data: modalities m1, m2, ..., of the given kinds in turn."""
    modalities = {
        f"m{i + 1}": Modality(kind := kinds[i % len(kinds)], KINDS[kind].example)
        for i in range(num_modalities)
    }
    return DataSpec(task=task, num_classes=num_classes, num_train=64, modalities=modalities)


def make_batch(spec: DataSpec, size: int = 8, *, complete: bool = True, seed: int = 0) -> Batch:
    """A batch of random numbers; incomplete ones have every combination, drawn uniformly."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {m: x.traits.made_up(size, x.shape, generator) for m, x in spec.modalities.items()}
    available = torch.ones(size, len(inputs), dtype=torch.bool)
    index = torch.arange(size)
    return Batch(
        inputs=inputs,
        available=available if complete else draw_combinations(available, index, seed, "made up"),
        target=build_task(spec).example(size, generator),
        noise_level=torch.zeros(size, len(inputs)),
        index=index,
        ids=[f"sample {i}" for i in range(size)],
    )


def fill_absent(batch: Batch, value: float) -> Batch:
    """The batch with another content where nothing is available."""
    inputs = {}
    for i, (name, x) in enumerate(batch.inputs.items()):
        inputs[name] = x.clone()
        inputs[name][~batch.available[:, i]] = (
            value if x.is_floating_point() else int(value == value)
        )  # no nan
    return Batch(**{**vars(batch), "inputs": inputs})
