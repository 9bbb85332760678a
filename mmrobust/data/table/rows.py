"""The samples of a user's table: files to tensors, cropped and flipped alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrobust import keyed
from mmrobust.data.files import images
from mmrobust.data.split import Key, Sample, Split
from mmrobust.data.table.columns import Column
from mmrobust.data.table.entries import Entry
from mmrobust.data.table.masks import MaskLabels, unlike
from mmrobust.data.table.samples import Samples
from mmrobust.data.targets import TARGET_COLUMNS
from mmrobust.errors import UserError

SMALLEST = 0.5  # share of the area that a crop keeps


def as_tensors(
    samples: Samples, inferred: Mapping[str, Any], augment: str, run_seed: int
) -> dict[str, Split]:
    """The splits of a table. Only train is augmented.

    Args:
        samples: the rows.
        inferred: what the files are, see `Inference`.
        augment, run_seed: see `Manifest`.
    """
    columns = {m: Column.from_dict(plain) for m, plain in inferred["modalities"].items()}
    masks = MaskLabels.from_dict(inferred["masks"]) if inferred["masks"] else None
    classes, seeds = tuple(inferred["classes"]), {"train": run_seed}  # the others: None
    return {
        split: Rows(rows, columns, samples.target, classes, masks, augment, seeds.get(split))
        for split, rows in samples.entries.items()
    }


class Rows(Split):
    """One split of a table; with run_seed None, for testing, nothing is random."""

    def __init__(
        self,
        entries: Sequence[Entry],
        columns: Mapping[str, Column],
        target: str,
        classes: Sequence[str],
        masks: MaskLabels | None,
        augment: str,
        run_seed: int | None,
    ) -> None:
        self.entries, self.columns, self.masks = entries, columns, masks
        self.ids = [entry.id for entry in entries]
        column = None if masks else TARGET_COLUMNS[target]
        self.targets = [column.encode(str(e.target), classes) for e in entries] if column else []
        self.tensors = torch.tensor(self.targets, dtype=column.dtype if column else torch.int64)
        self.present = np.array([[e.files[m] is not None for m in columns] for e in entries])
        self.augmentation, self.run_seed = augment, run_seed
        self.size = next(c.shape[-2:] for c in columns.values()) if masks else ()  # of all inputs then

    def read(self, key: Key) -> dict[str, Any]:
        """What `Column.read` gives, None where the cell is empty; and `mask` (H, W), classes, if there are any."""
        entry = self.entries[key.index]
        raw: dict[str, Any] = {
            m: None if (f := entry.files[m]) is None else c.read(f) for m, c in self.columns.items()
        }
        if self.masks:
            raw["mask"] = mask = self.masks.read(Path(entry.target))
            sizes = {m: x.shape[:2] for m, x in raw.items() if x is not None}
            if problem := unlike(sizes, mask.shape):
                raise UserError(f"line {entry.line}: {problem}")
        return raw

    def augment(self, raw: dict[str, Any], key: Key) -> dict[str, Any]:
        """The same crop and flip for all maps and the mask; then what noise acts on. In training the mask gets the
        inputs' size."""
        raw = dict(raw)
        maps = [m for m, c in self.columns.items() if c.is_map] + (["mask"] if self.masks else [])
        for m in maps:
            if (x := raw[m]) is not None and self.run_seed is not None:
                raw[m] = self.moved(x, key)
        for m, column in self.columns.items():
            if (x := raw[m]) is not None:
                raw[m] = column.prepare(x)
        if self.masks and self.run_seed is not None:
            mask = raw["mask"]
            assert mask is not None
            small = images.scaled_to(mask.astype(np.uint8), (self.size[0], self.size[1]), nearest=True)
            raw["mask"] = small.astype(np.int64)
        return raw

    def moved(self, x: np.ndarray, key: Key) -> np.ndarray:
        """(H, W) or (H, W, C), cropped and flipped by shares of its size, so that maps of other sizes go along."""
        flip, area, top, left = keyed.uniforms(4, self.run_seed or 0, "geometry", key.epoch, key.index)
        if self.augmentation == "crop_flip":
            side = (SMALLEST + (1 - SMALLEST) * area) ** 0.5
            h, w = (max(1, round(side * n)) for n in x.shape[:2])
            i, j = round(top * (x.shape[0] - h)), round(left * (x.shape[1] - w))
            x = x[i : i + h, j : j + w]
        return np.ascontiguousarray(x[:, ::-1] if self.augmentation != "none" and flip < 0.5 else x)

    def finish(self, raw: dict[str, Any], key: Key) -> Sample:
        inputs = {m: None if (x := raw[m]) is None else c.finish(x) for m, c in self.columns.items()}
        mask = raw["mask"] if self.masks else None
        return Sample(inputs, self.tensors[key.index] if mask is None else torch.from_numpy(mask))
