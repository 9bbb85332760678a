"""Handwritten digits in six views, 200 of each digit (UCI Multiple Features; van Breukelen et al., 1998)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust.data.families.views import Views, ViewsModule
from mmrobust.data.files.matlab import read_mat
from mmrobust.errors import Problems, UserError

# Pixel averages, Fourier coefficients, profile correlations, Zernike moments, Karhunen-Loève coefficients,
# morphological features; x1 to x6 in the file.
VIEWS = {"pix": 240, "fou": 76, "fac": 216, "zer": 47, "kar": 64, "mor": 6}
FILE = "handwritten_6views.mat"
SOURCE = "github.com/hanmenghan/TMC, from archive.ics.uci.edu/dataset/72"
EMBEDDED = Path(__file__).with_name("embedded") / "multiple_features.npz"
TEST = 0.2  # of every digit, in data.split=random

log = logging.getLogger(__name__)


class Handwritten(ViewsModule):
    """Some of six vectors, `pix fou fac zer kar mor`, of one digit; every feature is scaled by the smallest and the
    largest value that it has in the training split. Six views have 63 combinations.

    Layout: `handwritten_6views.mat` in `root`, the form that came with TMC (Han et al., ICLR 2021), with `x1_train` to
    `x6_test` and labels `gt_train`, `gt_test` from 1 to 10 (here 0 to 9). Without a root, the copy of these numbers
    that comes with the package, see `data/embedded/README.md`.

    Args:
        root: the folder; None: the package's copy.
        views: which, in the order of the modalities.
        split: `official`, that of the file (1600/400), or `random`, 80/20 % of every digit of all 2000, by `seed`.
        validation: share of every digit held out of train; at 0 there is no split `val`.
    """

    scaling = "range"

    def __init__(self, *, root: str | None, views: Sequence[str], split: str, **base: Any) -> None:
        super().__init__(root=root, **base)
        self.views, self.split = list(views), split

    def tables(self) -> tuple[Views, Views, tuple[str, ...]]:
        if self.split not in ("official", "random"):
            raise UserError(f"data.split={self.split} is no split of handwritten; use official or random")
        unknown = [view for view in self.views if view not in VIEWS]
        if unknown or not self.views or len({*self.views}) < len(self.views):
            raise UserError(
                f"data.views=[{','.join(self.views)}] is no choice of views; name some of {', '.join(VIEWS)}"
            )
        train, test = read_embedded(EMBEDDED) if self.root is None else read_parts(Path(self.root))
        log.info("%s: %d and %d digits", self.root or EMBEDDED, len(train.ids), len(test.ids))
        if self.split == "random":
            train, test = train.and_then(test).divided(TEST, self.seed)
        return self._chosen(train), self._chosen(test), tuple("0123456789")

    def _chosen(self, samples: Views) -> Views:
        return Views(samples.ids, samples.classes, {view: samples.features[view] for view in self.views})


def read_parts(root: Path) -> tuple[Views, Views]:
    """The two halves of the file.

    Raises:
        UserError: it is missing, or what is wrong with it, all at once.
    """
    path = root / FILE
    if not path.is_file():
        raise UserError(
            f"no {FILE} in data.root={root}; get it from {SOURCE}, or set data.root or paths.data"
        )
    problems = Problems()
    halves = [_half(path, half, problems) for half in ("train", "test")]
    if problems:
        raise UserError(f"{path} cannot be used:\n{problems.listed()}")
    return halves[0], halves[1]


def _half(path: Path, half: str, problems: Problems) -> Views:
    labels, *arrays = read_mat(path, f"gt_{half}", *(f"x{i + 1}_{half}" for i in range(len(VIEWS))))
    digits = labels.ravel().astype(np.float64)
    strange = np.setdiff1d(digits, np.arange(1, 11))
    if len(strange):
        problems.append(f"gt_{half} has labels {strange[:3].tolist()}; expected 1 to 10: get the file again")
    if not len(digits):
        problems.append(f"gt_{half} is empty; get the file again")
    features = {}
    for i, (view, x) in enumerate(zip(VIEWS, arrays, strict=True), start=1):
        expected = (len(digits), VIEWS[view])
        if x.shape != expected:
            advice = "it is transposed: " if x.T.shape == expected else ""
            problems.append(
                f"x{i}_{half} ({view}) has shape {x.shape}, expected {expected}; {advice}get the file again"
            )
        elif x.dtype.kind not in "fiu" or not np.isfinite(x).all():
            problems.append(
                f"x{i}_{half} ({view}) holds values that are no finite numbers; get the file again"
            )
        else:
            features[view] = x.astype(np.float64)
    classes = np.where(np.isin(digits, strange), 1, digits).astype(np.int64) - 1
    return Views(_ids(half, len(digits)), classes, features)


def _ids(half: str, count: int) -> list[str]:
    return [f"{half}_{i:04d}" for i in range(count)]


def read_embedded(path: Path) -> tuple[Views, Views]:
    """The package's copy: integers, of which every feature is `low + step × integer`."""
    with np.load(path) as found:
        classes, count = found["digits"].astype(np.int64), int(found["train"])
        features = {view: found[f"{view}_low"] + found[f"{view}_step"] * found[view] for view in VIEWS}
    whole = Views(_ids("train", count) + _ids("test", len(classes) - count), classes, features)
    return whole.rows(np.arange(count)), whole.rows(np.arange(count, len(classes)))


def write_embedded(path: Path, train: Views, test: Views) -> None:
    """Make the package's copy. Integers stay; `mor` is exact to its 8 decimals; the rest has 16 bits for each feature,
    whose step is 1/65535 of the range from the smallest to the largest value."""
    whole = train.and_then(test)
    arrays: dict[str, Any] = {"digits": whole.classes.astype(np.uint8), "train": len(train.ids)}
    for view, x in whole.features.items():
        low, step, dtype = 0.0, 1.0, {"pix": "uint8", "mor": "int64"}.get(view, "uint16")
        if view == "mor":
            step = 1e-8
        elif view not in ("pix", "fac"):
            low = x.min(0)
            step = (x.max(0) - low) / 65535
        arrays |= {f"{view}_low": low, f"{view}_step": step, view: np.round((x - low) / step).astype(dtype)}
    np.savez_compressed(path, **arrays)
