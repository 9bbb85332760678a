"""Multi-view feature sets in MATLAB files, as papers on multi-view classification share them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust.data.families.views import Views, ViewsModule
from mmrobust.data.files.matlab import read_matrices
from mmrobust.data.held_out import share_problem
from mmrobust.errors import Problems, UserError

# Names of variables, in small letters and without a number at the end.
LABELS = ("y", "gt", "gnd", "truelabel", "truth", "label", "labels", "target", "class", "classes", "l", "cls")
FEATURES = ("x", "data", "fea", "feat", "feature", "features", "view", "views", "v")

log = logging.getLogger(__name__)


class Multiview(ViewsModule):
    """Any number of vectors, `view1 view2 ...`, of one sample; every feature has mean 0 and deviation 1 in train.

    Layout: a .mat file with the views, as a cell array or as numbered matrices, and one vector of labels. Names may be
    any (X, data, fea; Y, gt, gnd, truelabel), samples rows or columns, matrices sparse or dense, labels any integers.

    Args:
        file: a path, or a name in `root`.
        test: share of every class that is the test, drawn by `seed`.
        validation: share of the rest of every class held out of train; at 0 there is no split `val`.
    """

    def __init__(self, *, file: str, test: float, **base: Any) -> None:
        super().__init__(**base)
        self.file, self.test = file, test

    def tables(self) -> tuple[Views, Views, tuple[str, ...]]:
        if problem := share_problem("data.test", self.test, "the samples"):
            raise UserError(problem)
        path = next((p for p in (Path(self.root) / self.file, Path(self.file)) if p.is_file()), None)
        if path is None:
            there = ", ".join(sorted(p.name for p in Path(self.root).glob("*.mat"))) or "no .mat file"
            raise UserError(
                f"data.file={self.file} is no file, neither here nor in data.root={self.root}, which has {there}"
            )
        samples, names = read_views(path)
        learned, test = samples.divided(self.test, self.seed)
        if not learned.ids or not test.ids:
            raise UserError(
                f"data.test={self.test} of {len(samples.ids)} samples leaves {len(learned.ids)} for training and "
                f"{len(test.ids)} for the test; change it"
            )
        shapes = ", ".join(str(x.shape[1]) for x in samples.features.values())
        log.info("%s: %d samples, %d classes, views of %s", path, len(samples.ids), len(names), shapes)
        return learned, test, names


def read_views(path: Path) -> tuple[Views, tuple[str, ...]]:
    """All samples of a file, and its labels as text.

    Raises:
        UserError: it cannot be read, or what is wrong with its views and labels, all at once.
    """
    found = read_matrices(path)
    key = _labels(found, path)
    labels = found.pop(key)[0].ravel()
    matrices = _matrices(found)
    count, problems = len(labels), Problems()
    if not matrices:
        listed = ", ".join(f"{name} {x[0].shape}" for name, x in found.items()) or "nothing else"
        raise UserError(
            f"{path} has the labels {key} and no views, only {listed}; save each view as a matrix with {count} rows, all "
            "in one cell array X"
        )
    # a square matrix lies as the others do
    columns = any(x.shape[0] != count for x in matrices) and all(x.shape[1] == count for x in matrices)
    features = {}
    for i, matrix in enumerate(matrices, start=1):
        x = matrix.T if columns or matrix.shape[0] != count == matrix.shape[1] else matrix
        if x.shape[0] != count:
            problems.append(f"view {i} has shape {x.shape}, but there are {count} labels ({key})")
        elif not np.isfinite(x).all():
            problems.append(f"view {i} holds {np.sum(~np.isfinite(x))} values that are no finite numbers")
        features[f"view{i}"] = x
    values, classes = np.unique(labels, return_inverse=True)
    if len(values) < 2:
        problems.append(f"all {count} labels ({key}) are {values[0]:g}")
    if problems:
        raise UserError(f"{path} cannot be used; mend it:\n{problems.listed()}")
    ids = [f"{path.stem}_{i:05d}" for i in range(count)]
    return Views(ids, classes.astype(np.int64), features), tuple(f"{value:g}" for value in values)


def _labels(found: dict[str, list[np.ndarray]], path: Path) -> str:
    """The variable that holds the labels: by its name, else the only vector of whole numbers."""
    vectors = {
        name: x[0]
        for name, x in found.items()
        # a cell array may repeat them for every view
        if all(min(v.shape) == 1 < max(v.shape) and np.array_equal(v, x[0]) for v in x)
        and np.array_equal(x[0], np.round(x[0]))
    }
    named = [name for name in vectors if _stem(name) in LABELS]
    candidates = sorted(named, key=lambda name: LABELS.index(_stem(name)))[:1] or list(vectors)
    if len(candidates) == 1:
        return candidates[0]
    why = (
        f"several vectors could be them ({', '.join(candidates)})" if candidates else "no vector of integers"
    )
    listed = ", ".join(f"{name} {x[0].shape}" for name, x in found.items()) or "no numbers at all"
    raise UserError(
        f"{path} has no labels that could be told: {why}; it has {listed}. Save them as a vector y with a class for "
        "each sample"
    )


def _matrices(found: dict[str, list[np.ndarray]]) -> list[np.ndarray]:
    """The views: what is named like views, else all that is no vector."""
    named = [name for name in found if _stem(name) in FEATURES]
    matrices = [x for name in named or found for x in found[name]]
    return matrices if named else [x for x in matrices if min(x.shape) > 1]


def _stem(name: str) -> str:
    """Without the number at its end, in small letters."""
    return name.lower().rstrip("0123456789").rstrip("_")
