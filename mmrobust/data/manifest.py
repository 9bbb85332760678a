"""Data of a user's own without code: a CSV beside a folder of files, `data=manifest data.manifest=my.csv`."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmrobust import keyed
from mmrobust.data.base import DataModule
from mmrobust.data.files import images
from mmrobust.data.listing import Listing, changed_since
from mmrobust.data.spec import DataSpec
from mmrobust.data.split import Key, Sample, Split
from mmrobust.data.table.columns import Column
from mmrobust.data.table.csv_file import TARGETS, content_hash, modality_columns, read_table
from mmrobust.data.table.entries import (
    SPLITS,
    Entries,
    Entry,
    cells_of,
    note_shared,
    note_unseen,
    read_entries,
    target_column,
    text_columns,
    with_splits,
)
from mmrobust.data.table.inference import OPTIONS, Inference, described, unlike
from mmrobust.data.table.masks import VOID, MaskLabels
from mmrobust.data.targets import TARGET_COLUMNS, names_of
from mmrobust.errors import Problems, UserError
from mmrobust.files import expanded

AUGMENTATIONS = ("none", "flip", "crop_flip")
SMALLEST = 0.5  # share of the area that a crop keeps

log = logging.getLogger(__name__)


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


def unknown_options(modalities: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Keys below `data.modalities` that nothing reads, in words."""
    found = []
    for name, options in modalities.items():
        known, path = (columns, name) if name not in columns else (OPTIONS, "")
        unknown = [name] if path else [f"{name}.{o}" for o in options if o not in OPTIONS]
        close = difflib.get_close_matches(unknown[0].rpartition(".")[2], known, n=1) if unknown else []
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        found += [f"data.modalities.{key} has no effect; {hint}" for key in unknown]
    return found


class Manifest(DataModule):
    """The modalities are columns of a CSV, whose cells name files; an empty cell: not available.

    What the files are is inferred (`infer`): from the first ones kinds and sizes, from some of train means and
    standard deviations, from all rows the classes. All of it can be set. See `table` for the CSV, `columns` for
    kinds of files, and conf/data/manifest.yaml for the keys.

    Args:
        manifest: the CSV.
        columns: the modalities; None: all columns but id, split and those of targets.
        content: `content_hash` that the CSV must have; None: any.
        root: the folder that names start from; None: the CSV's.
        modalities: name -> kind, size, mean, std, unit, sample_rate, None where they are inferred.
        inferred: what `infer` gave; None: do it now.
        target: the column of the targets, `label`, `mask`, `value` or `labels`, which says the task; None: the one
            there is.
        classes: names in order, for masks perhaps their number; None: all that occur.
        validation, test: shares held out of train where no row names the split.
        ignore_index, label_offset: of masks, see `MaskLabels`.
        class_weights: of the loss of masks, see `Inference`.
        augment: one of AUGMENTATIONS.
        inspect: rows of train that mean and std are computed from.
        n_fft, hop: of spectrograms.
    """

    def __init__(
        self,
        *,
        manifest: str,
        columns: Sequence[str] | None,
        content: str | None,
        root: str | None,
        modalities: Mapping[str, Mapping[str, Any]],
        inferred: Mapping[str, Any] | None,
        target: str | None,
        classes: Sequence[str] | int | None,
        validation: float,
        test: float,
        ignore_index: int | None,
        label_offset: int,
        class_weights: str | Sequence[float],
        augment: str,
        inspect: int,
        n_fft: int,
        hop: int,
        **base: Any,
    ) -> None:
        self.manifest = expanded(manifest)
        super().__init__(root=str(self.manifest.parent if root is None else root), **base)
        self.columns, self.content, self.modalities = columns, content, modalities
        self.inferred, self.target, self.augment = inferred, target, augment
        self.classes = classes if isinstance(classes, int | None) else [str(c) for c in classes]
        self.validation, self.test = validation, test
        self.ignore_index, self.label_offset = ignore_index, label_offset
        self.class_weights = class_weights
        self.inspect, self.n_fft, self.hop = inspect, n_fft, hop
        self._read: tuple[str, Entries] | None = None

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        world = int(os.environ.get("WORLD_SIZE", 1))
        least = max(len(self.splits["train"]) // world, 1) * world
        if least < self.batch_size:
            log.info("train has %d samples: data.batch_size=%d", len(self.splits["train"]), least)
            self.batch_size = least

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        inferred = self.inferred or self.infer()
        target, entries = self.entries()
        log.info("what the files are:\n%s", self.told(inferred))
        for shared in self.shared:
            log.warning("%s", shared)
        if how := changed_since(inferred.get("files"), self.listing.stamp()):
            told = f"{self.manifest} names {how} than the run was made with"
            log.warning("%s", told)
            if os.environ.get("RANK", "0") == "0":
                print(f"warning: {told}", file=sys.stderr, flush=True)
        columns = {m: Column.from_dict(plain) for m, plain in inferred["modalities"].items()}
        masks = MaskLabels.from_dict(inferred["masks"]) if inferred["masks"] else None
        classes = tuple(inferred["classes"])
        splits: dict[str, Split] = {
            name: Rows(
                rows,
                columns,
                target,
                classes,
                masks,
                self.augment,
                self.run_seed if name == "train" else None,
            )
            for name, rows in entries.items()
        }
        modalities = {m: column.modality for m, column in columns.items()}
        void = VOID if masks else -100
        train, weights = len(splits["train"]), tuple(inferred["class_weights"])
        return DataSpec(TARGETS[target], len(classes), train, modalities, classes, void, weights), splits

    def entries(self) -> tuple[str, Entries]:
        """The column of the targets, and the rows of every split. Raises: UserError: all that is wrong with them."""
        if self._read is None:
            self._read = self._checked()
        return self._read

    def _checked(self) -> tuple[str, Entries]:
        if self.content not in (None, content_hash(self.manifest)):
            raise UserError(
                f"data.manifest={self.manifest} has changed since this run was made; take the old one, or make a new run"
            )
        columns, table = modality_columns(self.manifest, self.columns), read_table(self.manifest)
        target, root = target_column(table, self.target), expanded(self.root)
        self.listing = Listing(root)
        problems, damaged = Problems(), Problems()
        if not root.is_dir():
            raise UserError(f"data.root={root} is no folder; the names in {self.manifest} start from it")
        if self.augment not in AUGMENTATIONS:
            problems.append(f"data.augment={self.augment} is not known; choose {', '.join(AUGMENTATIONS)}")
        problems += unknown_options(self.modalities, columns)
        taken = [m for m in columns if hasattr(nn.ModuleDict(), m)]
        problems.add("names that torch keeps for itself", taken, "rename these columns")
        texts = text_columns(table, columns, {m: self.modalities.get(m, {}).get("kind") for m in columns})
        entries = read_entries(table, columns, texts, target, self.listing, problems, damaged)
        classes, self.how = None, list[str]()
        if target != "mask":
            neutral = {"ignore_index": VOID, "class_weights": "none", "label_offset": 0}
            problems += [
                f"data.{key}={getattr(self, key)} has no effect: it is for masks, and the target is a {target}; leave it out"
                for key, value in neutral.items()
                if getattr(self, key) != value
            ]
            names = names_of(target, cells_of(entries), self.classes, problems)
            classes = names if TARGET_COLUMNS[target].by_class else None
        if not problems:
            entries, self.how = with_splits(entries, classes, self.validation, self.test, self.seed)
            if target != "mask":
                note_unseen(entries, target, problems)
        if problems or (damaged and self.corrupt == "error"):
            if damaged and not problems:
                damaged[-1] += "; or leave these samples out: data.corrupt=skip"
            raise UserError(
                f"data.manifest={self.manifest} cannot be used:\n- " + "\n- ".join([*problems, *damaged])
            )
        self.shared = note_shared(entries, self.listing)
        return target, entries

    def infer(self) -> dict[str, Any]:
        """What the files are, see `Inference`."""
        target, entries = self.entries()
        names = modality_columns(self.manifest, self.columns)
        inference = Inference(
            entries=entries,
            options={m: {**dict.fromkeys(OPTIONS), **self.modalities.get(m, {})} for m in names},
            classes=self.classes,
            ignore_index=self.ignore_index,
            label_offset=self.label_offset,
            class_weights=self.class_weights,
            skip=self.corrupt == "skip",
            seed=self.seed,
            inspect=self.inspect,
            n_fft=self.n_fft,
            hop=self.hop,
        )
        inferred = inference.infer(target)
        if self.augment != "none" and not any(
            Column.from_dict(c).is_map for c in inferred["modalities"].values()
        ):
            raise UserError(
                f"data.augment={self.augment} has no effect: no column holds images or depth; leave it out"
            )
        return inferred | {"files": self.listing.stamp()}

    def told(self, inferred: Mapping[str, Any]) -> str:
        """What was inferred, as a short table, and how to set it otherwise."""
        target, entries = self.entries()
        counts = ", ".join(f"{split} {len(entries.get(split, []))}" for split in SPLITS)
        how = f" ({'; '.join(self.how)}, data.seed={self.seed})" if self.how else ""
        task = TARGETS[target]
        rows = sum(map(len, entries.values()))
        lines = [("data", f"{self.manifest}: {rows} rows, {task}"), ("splits", counts + how)]
        if (train := len(entries["train"])) < self.batch_size:
            lines.append(("batch", f"{train}, fewer than data.batch_size={self.batch_size}"))
        lines += described(inferred, entries) + [("warning", shared) for shared in self.shared]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)
