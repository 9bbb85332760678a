"""Multi-view feature sets: views and labels are found whatever they are called and however they lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse
from scipy.io import savemat

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.base import DataModule
from mmrobust.data.multiview import read_views
from mmrobust.data.split import Key
from mmrobust.errors import UserError

REAL = Path(os.environ.get("MMROBUST_DATA", "data")) / "multiview"
CLASSES = np.repeat(np.arange(3), 20)
FIRST = np.random.default_rng(0).random((60, 5)) + CLASSES[:, None]
SECOND = np.random.default_rng(1).integers(0, 9, (60, 7)).astype(float)

# As the README of the ten sets counts them.
SETS = {
    "Handwritten": (2000, 10, (216, 76, 64, 6, 240, 47)),
    "MSRC-v5": (210, 7, (24, 576, 512, 256, 254)),
    "100Leaves": (1600, 100, (64, 64, 64)),
    "3Sources": (169, 6, (3560, 3631, 3068)),
    "BBCSport": (544, 5, (3183, 3203)),
    "ProteinFold": (694, 27, (27,) * 12),
    "Prokaryotic": (551, 4, (393, 3, 438)),
    "Reuters-1200": (1200, 6, (2000,) * 5),
    "WebKB": (1051, 2, (1840, 3000)),
    "Wikipedia": (2866, 10, (128, 10)),
}


def cells(*items: Any) -> np.ndarray:
    array = np.empty((1, len(items)), dtype=object)
    for i, item in enumerate(items):
        array[0, i] = item
    return array


def ready(path: Path, *overrides: str) -> DataModule:
    keys = ["data=multiview", f"paths.data={path.parent}", f"data.file={path}", "data.batch_size=4"]
    data: DataModule = construct(compose_config([*keys, *overrides]).data)
    data.setup()
    return data


def problem(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        ready(path, *overrides)
    return str(caught.value)


def saved(folder: Path, **variables: Any) -> Path:
    savemat(folder / "set.mat", variables)
    return folder / "set.mat"


FORMS: dict[str, dict[str, Any]] = {
    "cells of rows": {"X": cells(FIRST, SECOND), "Y": CLASSES[:, None] + 1},
    "cells of columns": {"data": cells(FIRST.T, SECOND.T), "truelabel": cells(CLASSES, CLASSES)},
    "sparse": {"X": cells(FIRST, scipy.sparse.csc_matrix(SECOND)), "gt": CLASSES},
    "labels from 0, in a row": {"fea": cells(FIRST, SECOND), "gnd": CLASSES[None].astype(np.uint8)},
    "matrices with numbers": {"X1": FIRST, "X2": SECOND, "y": CLASSES - 4.0},
    "names that nobody knows": {"alpha": FIRST, "beta": SECOND, "gamma": CLASSES, "note": "text"},
    "more than is needed": {"X": cells(FIRST, SECOND), "Y": CLASSES, "names": cells("a", "b"), "k": 3},
}


@pytest.mark.parametrize("form", FORMS)
def test_views_and_labels_are_found(form: str, tmp_path: Path) -> None:
    samples, names = read_views(saved(tmp_path, **FORMS[form]))
    assert list(samples.features) == ["view1", "view2"]
    np.testing.assert_array_equal(samples.features["view1"], FIRST)
    np.testing.assert_array_equal(samples.features["view2"], SECOND)
    np.testing.assert_array_equal(samples.classes, CLASSES)
    assert len(names) == 3
    assert samples.ids[7] == "set_00007"


def test_numbered_matrices_are_in_natural_order(tmp_path: Path) -> None:
    views = {f"X{i}": np.full((60, 2), float(i)) for i in range(1, 12)}
    samples, _ = read_views(saved(tmp_path, **views, Y=CLASSES))
    assert [x[0, 0] for x in samples.features.values()] == list(range(1, 12))


def test_a_square_view_lies_as_the_others_do(tmp_path: Path) -> None:
    square = np.random.default_rng(2).random((60, 60))
    rows, _ = read_views(saved(tmp_path, X=cells(square, SECOND), Y=CLASSES))
    np.testing.assert_array_equal(rows.features["view1"], square)
    columns, _ = read_views(saved(tmp_path, X=cells(square.T, SECOND.T), Y=CLASSES))
    np.testing.assert_array_equal(columns.features["view1"], square)


def test_version_7_3(tmp_path: Path) -> None:
    """Written as MATLAB does: axes reversed, cells as references, sparse matrices as groups."""
    with h5py.File(tmp_path / "set.mat", "w") as file:
        file["#refs#/a"] = FIRST.T
        sparse = scipy.sparse.csc_matrix(SECOND)
        group = file.create_group("#refs#/b")
        group.attrs["MATLAB_sparse"] = np.uint64(60)
        group["data"], group["ir"], group["jc"] = sparse.data, sparse.indices, sparse.indptr
        file["X"] = np.array([[file["#refs#/a"].ref], [file["#refs#/b"].ref]], dtype=h5py.ref_dtype)
        file["Y"] = CLASSES[None] + 1.0
        file["title"] = np.array([[65], [66]], dtype=np.uint16)
        file["title"].attrs["MATLAB_class"] = np.bytes_("char")
    samples, names = read_views(tmp_path / "set.mat")
    np.testing.assert_array_equal(samples.features["view1"], FIRST)
    np.testing.assert_array_equal(samples.features["view2"], SECOND)
    np.testing.assert_array_equal(samples.classes, CLASSES)
    assert names == ("1", "2", "3")


def test_splits_are_by_class_and_hang_on_the_data_seed(tmp_path: Path) -> None:
    path = saved(tmp_path, X=cells(FIRST, SECOND), Y=CLASSES)
    data = ready(path, "data.validation=0.25")
    counts = {name: np.bincount(split.targets).tolist() for name, split in data.splits.items()}
    assert counts == {"train": [12] * 3, "val": [4] * 3, "test": [4] * 3}
    tests = [set(ready(path, f"data.seed={s}", f"seed={r}").splits["test"].ids) for s, r in ((0, 1), (1, 0))]
    assert set(data.splits["test"].ids) == tests[0] != tests[1]
    assert list(ready(path, "data.validation=0").splits) == ["train", "test"]


def test_views_are_standardised_by_train_alone(tmp_path: Path) -> None:
    constant = np.concatenate([SECOND, np.full((60, 1), 7.0)], axis=1)
    data = ready(saved(tmp_path, X=cells(FIRST, constant), Y=CLASSES))
    rows = [int(name.rpartition("_")[2]) for name in data.splits["train"].ids]
    mean, std = FIRST[rows].mean(0), FIRST[rows].std(0)
    split = data.splits["test"]
    sample = split[Key(0, 3)].inputs
    row = int(split.ids[3].rpartition("_")[2])
    np.testing.assert_allclose(sample["view1"], (FIRST[row] - mean) / std, rtol=1e-5)
    assert sample["view2"][-1] == 0


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"X": cells(FIRST, SECOND)}, "no labels that could be told: no vector of integers; it has X (60, 5)"),
        ({"Y": CLASSES}, "has the labels Y and no views, only nothing else; save each view as a matrix with 60 rows"),
        ({"X": cells(FIRST, SECOND[:50]), "Y": CLASSES}, "view 2 has shape (50, 7), but there are 60 labels (Y)"),
        ({"X": cells(FIRST * np.nan), "Y": CLASSES}, "view 1 holds 300 values that are no finite numbers"),
        ({"X": cells(FIRST), "Y": np.ones(60)}, "all 60 labels (Y) are 1"),
        ({"A": FIRST, "b": CLASSES, "c": CLASSES}, "several vectors could be them (b, c)"),
        ({"text": "nothing"}, "it has no numbers at all"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file(variables: dict[str, Any], told: str, tmp_path: Path) -> None:
    assert told in problem(saved(tmp_path, **variables))


def test_no_file_a_damaged_one_and_shares_that_cannot_be(tmp_path: Path) -> None:
    path = saved(tmp_path, X=cells(FIRST, SECOND), Y=CLASSES)
    assert "data.test=0.0 of 60 samples leaves 60 for training and 0" in problem(path, "data.test=0.0")
    assert "data.test=1.0 is not a share" in problem(path, "data.test=1.0")
    assert "data.validation=0.01 of 48 samples" in problem(path, "data.validation=0.01")
    assert f"data.root={tmp_path}, which has set.mat" in problem(
        path, f"data.root={tmp_path}", "data.file=no.mat"
    )
    whole = path.read_bytes()
    for size in (0, 200, len(whole) // 2):
        path.write_bytes(whole[:size])
        assert f"({size} bytes) cannot be read as a MATLAB file" in problem(path)


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is absent; set MMROBUST_DATA")
@pytest.mark.parametrize("name", SETS)
def test_real_sets(name: str) -> None:
    count, classes, sizes = SETS[name]
    data = ready(REAL / f"{name}.mat", f"data.root={REAL}", f"data.file={name}.mat")
    assert tuple(x.shape[0] for x in data.spec.modalities.values()) == sizes
    assert data.spec.num_classes == classes
    assert sum(len(split) for split in data.splits.values()) == count
    assert len(data.splits["test"]) == pytest.approx(0.2 * count, rel=0.12)
    for split in data.splits.values():
        assert all(x.isfinite().all() for x in split[Key(0, 0)].inputs.values())
