"""Samples that are several vectors of features, their views: splits of a table of them, scaled as train is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmrobust.data.base import DataModule
from mmrobust.data.held_out import hold_out, hold_out_validation
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Key, Sample, Split


@dataclass(frozen=True)
class Views:
    """Some samples: their names, their classes (N,) from 0, and each view's features (N, D)."""

    ids: list[str]
    classes: np.ndarray
    features: Mapping[str, np.ndarray]

    def rows(self, rows: np.ndarray) -> Views:
        features = {view: x[rows] for view, x in self.features.items()}
        return Views([self.ids[i] for i in rows], self.classes[rows], features)

    def and_then(self, other: Views) -> Views:
        features = {view: np.concatenate([x, other.features[view]]) for view, x in self.features.items()}
        return Views(self.ids + other.ids, np.concatenate([self.classes, other.classes]), features)

    def divided(self, share: float, seed: int) -> tuple[Views, Views]:
        """Without a share of every class, and that share; the same for the same seed."""
        kept, held = hold_out(self.classes.tolist(), share, seed)
        return self.rows(kept), self.rows(held)


class ViewsSplit(Split):
    """One split, scaled: a (D,) float32 vector for each view."""

    def __init__(self, samples: Views) -> None:
        self.ids, self.targets = samples.ids, samples.classes.tolist()
        self.features = {view: x.astype(np.float32) for view, x in samples.features.items()}
        self.present = np.ones((len(samples.ids), len(samples.features)), dtype=bool)

    def read(self, key: Key) -> dict[str, np.ndarray]:
        return {view: x[key.index] for view, x in self.features.items()}

    def finish(self, raw: dict[str, np.ndarray], key: Key) -> Sample:
        return Sample({view: torch.from_numpy(x.copy()) for view, x in raw.items()}, self.targets[key.index])


class ViewsModule(DataModule):
    """Base of datasets of views. A subclass implements `tables`.

    Args:
        validation: share of every class held out of train; at 0 there is no split `val`.
    """

    scaling = (
        "standard"  # of each feature by the training split: mean and deviation, or its `range` to [0, 1]
    )

    def __init__(self, *, validation: float, **base: Any) -> None:
        super().__init__(**base)
        self.validation = validation

    @abstractmethod
    def tables(self) -> tuple[Views, Views, tuple[str, ...]]:
        """What is for training and validation, what for the test, and the names of the classes; raises as `load`."""

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        learned, test, names = self.tables()
        rows = hold_out_validation(learned.classes.tolist(), self.validation, self.seed, "samples")
        train, val = map(learned.rows, rows)
        parts = {name: x for name, x in (("train", train), ("val", val), ("test", test)) if x.ids}
        splits: dict[str, Split] = {
            name: ViewsSplit(part) for name, part in scaled(parts, self.scaling).items()
        }
        modalities = {view: Modality("vector", (x.shape[1],)) for view, x in train.features.items()}
        return DataSpec("classification", len(names), len(train.ids), modalities, names), splits


def scaled(parts: Mapping[str, Views], scaling: str) -> dict[str, Views]:
    """Every feature by its values in the part `train`: `standard`, to mean 0 and deviation 1, or `range`, to [0, 1].
    One that never varies there is only shifted."""
    low, span = {}, {}
    for view, x in parts["train"].features.items():
        low[view] = x.min(0) if scaling == "range" else x.mean(0)
        spread = x.max(0) - low[view] if scaling == "range" else x.std(0)
        span[view] = np.where(spread > 0, spread, 1)
    return {
        name: Views(
            part.ids, part.classes, {view: (x - low[view]) / span[view] for view, x in part.features.items()}
        )
        for name, part in parts.items()
    }
