"""Samples that are several vectors of features, their views: splits of a table of them, scaled as train is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmrobust.data.base import DataModule
from mmrobust.data.files.arrays import read_array
from mmrobust.data.held_out import hold_out, hold_out_validation
from mmrobust.data.reader import Reader, vector_reader
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Key, Sample, Split
from mmrobust.errors import UserError


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

    def scaled(self, shift: Mapping[str, np.ndarray], spread: Mapping[str, np.ndarray]) -> Views:
        """Each view minus its shift, divided by its spread, (D,) each."""
        features = {view: (x - shift[view]) / spread[view] for view, x in self.features.items()}
        return Views(self.ids, self.classes, features)

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
        shift, spread = scaling(train.features, self.scaling)
        splits: dict[str, Split] = {
            name: ViewsSplit(part.scaled(shift, spread)) for name, part in parts.items()
        }
        modalities = {view: Modality("vector", (x.shape[1],)) for view, x in train.features.items()}
        measured = {m: {"shift": shift[m].tolist(), "spread": spread[m].tolist()} for m in modalities}
        count = len(train.ids)
        return DataSpec("classification", len(names), count, modalities, names, statistics=measured), splits

    def reader(self, modality: str, spec: DataSpec) -> Reader:
        """A vector in a `.npy` file, or an array, scaled as train was."""
        if modality not in spec.statistics:
            raise UserError(
                f"this run does not say how {modality} was scaled: it is of a version that did not keep it; train it again"
            )
        measured = spec.statistics[modality]
        return vector_reader(spec.modalities[modality], read_array, measured["shift"], measured["spread"])


def scaling(train: Mapping[str, np.ndarray], how: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What is subtracted from every feature, and by what it is divided, from its values in train (N, D): `standard`, to
    mean 0 and deviation 1, or `range`, to [0, 1]. One that never varies is only shifted."""
    shift, spread = {}, {}
    for view, x in train.items():
        shift[view] = x.min(0) if how == "range" else x.mean(0)
        span = x.max(0) - shift[view] if how == "range" else x.std(0)
        spread[view] = np.where(span > 0, span, 1)
    return shift, spread
