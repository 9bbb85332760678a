"""Handwritten digits in six views, 200 of each digit (UCI Multiple Features; van Breukelen et al., 1998)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrobust.data.base import DataModule, hold_out
from mmrobust.data.files.matlab import read_mat
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Key, Sample, Split
from mmrobust.errors import Problems, UserError

# Pixel averages, Fourier coefficients, profile correlations, Zernike moments, Karhunen-Loève coefficients,
# morphological features; x1 to x6 in the file.
VIEWS = {"pix": 240, "fou": 76, "fac": 216, "zer": 47, "kar": 64, "mor": 6}
FILE = "handwritten_6views.mat"
SOURCE = "github.com/hanmenghan/TMC, from archive.ics.uci.edu/dataset/72"
TEST = 0.2  # of every digit, in data.split=random

log = logging.getLogger(__name__)
Part = tuple[list[str], np.ndarray, dict[str, np.ndarray]]  # ids, digits (N,), view -> (N, D)


class Digits(Split):
    """One split; `views` are scaled."""

    def __init__(self, ids: list[str], digits: np.ndarray, views: Mapping[str, np.ndarray]) -> None:
        self.ids, self.targets, self.views = ids, digits.tolist(), views
        self.present = np.ones((len(ids), len(views)), dtype=bool)

    def read(self, key: Key) -> dict[str, np.ndarray]:
        """(D,) float32 each, in [0, 1] where the training split's values lie."""
        return {view: x[key.index] for view, x in self.views.items()}

    def finish(self, raw: dict[str, np.ndarray], key: Key) -> Sample:
        return Sample({view: torch.from_numpy(x.copy()) for view, x in raw.items()}, self.targets[key.index])


class Handwritten(DataModule):
    """Six vectors, `pix fou fac zer kar mor`, of one digit; every feature is scaled by the smallest and the largest
    value that it has in the training split. So 63 combinations of modalities.

    Layout: `handwritten_6views.mat` in `root`, the form that came with TMC (Han et al., ICLR 2021), with `x1_train` to
    `x6_test` and labels `gt_train`, `gt_test` from 1 to 10 (here 0 to 9).

    Args:
        split: `official`, that of the file (1600/400), or `random`, 80/20 % of every digit of all 2000, by `seed`.
        validation: share of every digit held out of train; at 0 there is no split `val`.
    """

    def __init__(self, *, split: str, validation: float, **base: Any) -> None:
        super().__init__(**base)
        self.split, self.validation = split, validation

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        if self.split not in ("official", "random"):
            raise UserError(f"data.split={self.split} is no split of handwritten; use official or random")
        if not 0 <= self.validation < 1:
            raise UserError(f"data.validation={self.validation} is not a share of train; use 0 <= share < 1")
        path = Path(self.root) / FILE
        if not path.is_file():
            raise UserError(
                f"no {FILE} in data.root={self.root}; get it from {SOURCE}, or set data.root or paths.data"
            )
        problems = Problems()
        train, test = read_parts(path, problems)
        if problems:
            raise UserError(f"{path} cannot be used:\n- " + "\n- ".join(problems))
        if self.split == "random":
            together = joined(train, test)
            kept, held = hold_out(together[1].tolist(), TEST, self.seed)
            train, test = rows_of(together, kept), rows_of(together, held)
        kept, held = hold_out(train[1].tolist(), self.validation, self.seed)
        if not len(kept) or (self.validation and not len(held)):
            raise UserError(
                f"data.validation={self.validation} of {len(train[0])} digits leaves {len(kept)} for training and "
                f"{len(held)} for validation; change it, or set 0 for no validation split"
            )
        parts = {"train": rows_of(train, kept), "val": rows_of(train, held), "test": test}
        low = {view: x.min(0) for view, x in parts["train"][2].items()}
        span = {view: x.max(0) - low[view] for view, x in parts["train"][2].items()}
        splits: dict[str, Split] = {}
        for name, (ids, digits, views) in parts.items():
            if len(ids):
                scaled = {
                    view: ((x - low[view]) / np.where(span[view] > 0, span[view], 1)).astype(np.float32)
                    for view, x in views.items()
                }
                splits[name] = Digits(ids, digits, scaled)
        log.info("%s: %s", path, {name: len(split) for name, split in splits.items()})
        modalities = {view: Modality("vector", (size,)) for view, size in VIEWS.items()}
        return DataSpec("classification", 10, len(kept), modalities, tuple("0123456789")), splits


def read_parts(path: Path, problems: Problems) -> tuple[Part, Part]:
    """The two halves of the file; adds to `problems`."""
    halves = []
    for half in ("train", "test"):
        labels, *arrays = read_mat(path, f"gt_{half}", *(f"x{i + 1}_{half}" for i in range(len(VIEWS))))
        digits = labels.ravel().astype(np.float64)
        strange = np.setdiff1d(digits, np.arange(1, 11))
        if len(strange):
            problems.append(
                f"gt_{half} has labels {strange[:3].tolist()}; expected 1 to 10: get the file again"
            )
        if not len(digits):
            problems.append(f"gt_{half} is empty; get the file again")
        views = {}
        for i, (view, x) in enumerate(zip(VIEWS, arrays, strict=True), start=1):
            expected = (len(digits), VIEWS[view])
            if x.shape != expected:
                advice = (
                    "it is transposed: get the file again" if x.T.shape == expected else "get the file again"
                )
                problems.append(f"x{i}_{half} ({view}) has shape {x.shape}, expected {expected}; {advice}")
            elif x.dtype.kind not in "fiu" or not np.isfinite(x).all():
                problems.append(
                    f"x{i}_{half} ({view}) holds values that are no finite numbers; get the file again"
                )
            views[view] = x
        ids = [f"{half}_{i:04d}" for i in range(len(digits))]
        halves.append((ids, np.where(np.isin(digits, strange), 1, digits).astype(np.int64) - 1, views))
    if not problems:
        halves = [
            (ids, digits, {v: x.astype(np.float64) for v, x in views.items()})
            for ids, digits, views in halves
        ]
    return halves[0], halves[1]


def joined(first: Part, second: Part) -> Part:
    views = {view: np.concatenate([first[2][view], second[2][view]]) for view in VIEWS}
    return first[0] + second[0], np.concatenate([first[1], second[1]]), views


def rows_of(part: Part, rows: np.ndarray) -> Part:
    return [part[0][i] for i in rows], part[1][rows], {view: x[rows] for view, x in part[2].items()}
