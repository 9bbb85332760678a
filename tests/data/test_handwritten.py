import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrobust.combinations import all_combinations
from mmrobust.data.handwritten import (
    EMBEDDED,
    FILE,
    VIEWS,
    read_embedded,
    read_parts,
    write_embedded,
)
from mmrobust.data.split import Key
from tests.data.handwritten_tree import arrays, make_handwritten
from tests.data.trees import dataset, refused

REAL = Path(os.environ.get("MMROBUST_DATA", "data")) / "handwritten6"
NAME = "handwritten"
ready, problem = partial(dataset, NAME), partial(refused, NAME)


def test_official_split(tree):
    data = ready(tree)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 60, "val": 20, "test": 20}
    assert {m: x.shape for m, x in data.spec.modalities.items()} == {v: (d,) for v, d in VIEWS.items()}
    assert len(all_combinations(list(data.spec.modalities))) == 63
    assert np.bincount(data.splits["train"].targets).tolist() == [6] * 10
    assert data.splits["test"].ids[:2] == ["test_0000", "test_0001"]
    assert list(ready(tree, validation=0).splits) == ["train", "test"]


def test_random_split_hangs_on_the_data_seed(tree):
    first, again, other = (set(ready(tree, split="random", seed=s).splits["test"].ids) for s in (0, 0, 1))
    assert first == again != other
    assert len(first) == 20
    assert {name.partition("_")[0] for name in first} == {"train", "test"}
    assert first == set(ready(tree, split="random", run_seed=5).splits["test"].ids)


def test_scaled_by_the_training_split_alone(tree):
    data = ready(tree)
    for view in VIEWS:
        x = torch.stack([data.splits["train"][Key(0, i)].inputs[view] for i in range(60)])
        assert x.min(0).values.eq(0).all()
        assert x.max(0).values.sub(1).abs().max() < 1e-6
    row = [int(i.partition("_")[2]) for i in data.splits["train"].ids]
    raw = arrays()
    low, high = raw["x6_train"][row].min(0), raw["x6_train"][row].max(0)
    expected = (raw["x6_test"][3] - low) / (high - low)
    np.testing.assert_allclose(data.splits["test"][Key(0, 3)].inputs["mor"], expected, rtol=1e-5)


def test_a_feature_that_never_varies(tmp_path):
    make_handwritten(tmp_path, x4_train=np.full((80, 47), 3.0))
    assert ready(tmp_path).splits["train"][Key(0, 0)].inputs["zer"].eq(0).all()


def test_what_is_wrong_is_told_at_once(tmp_path):
    raw = arrays()
    broken = raw["x5_train"].copy()
    broken[3, 3] = np.nan
    make_handwritten(
        tmp_path,
        x1_train=raw["x1_train"].T,
        x2_test=raw["x2_test"][:, :70],
        x5_train=broken,
        gt_test=raw["gt_test"] + 1,
    )
    told = problem(tmp_path)
    assert "x1_train (pix) has shape (240, 80), expected (80, 240); it is transposed" in told
    assert "x2_test (fou) has shape (20, 70), expected (20, 76)" in told
    assert "x5_train (kar) holds values that are no finite numbers" in told
    assert "gt_test has labels [11.0]; expected 1 to 10" in told


def test_no_file_damaged_file_lacking_variable(tree, tmp_path):
    assert f"no {FILE} in data.root={tmp_path}" in problem(tmp_path)
    make_handwritten(tmp_path, x3_test=None)
    assert "has no variable x3_test, only " in problem(tmp_path)
    whole = (tree / FILE).read_bytes()
    for size in (0, 100, len(whole) // 2):
        (tmp_path / FILE).write_bytes(whole[:size])
        assert f"({size} bytes) cannot be read as a MATLAB file" in problem(tmp_path)


def test_keys(tree):
    assert "data.split=half is no split" in problem(tree, split="half")
    assert "data.validation=1.5 is not a share" in problem(tree, validation=1.5)
    assert "data.validation=0.01 of 80 samples leaves 80" in problem(tree, validation=0.01)
    for views in (["pix", "hog"], [], ["pix", "pix"]):
        assert "is no choice of views; name some of pix, fou" in problem(tree, views=views)


def test_some_views_in_an_order(tree):
    data = ready(tree, views=["mor", "fou"])
    assert {m: x.shape for m, x in data.spec.modalities.items()} == {"mor": (6,), "fou": (76,)}
    assert list(data.splits["train"][Key(0, 0)].inputs) == ["mor", "fou"]


def test_the_packages_copy_is_used_without_a_root():
    data = ready(None, validation=0.1, views=["fou", "kar", "mor"])
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 1440,
        "val": 160,
        "test": 400,
    }
    assert EMBEDDED.stat().st_size < 1.5e6
    assert "CC BY 4.0" in EMBEDDED.with_name("README.md").read_text()


def test_a_copy_is_as_exact_as_it_says(tree, tmp_path):
    halves = read_parts(tree)
    write_embedded(tmp_path / "copy.npz", *halves)
    assert_copied(halves, tmp_path / "copy.npz")


def assert_copied(halves, path: Path) -> None:
    span = {view: np.ptp(x, axis=0) for view, x in halves[0].and_then(halves[1]).features.items()}
    for half, copy in zip(halves, read_embedded(path), strict=True):
        assert half.ids == copy.ids
        assert half.classes.tolist() == copy.classes.tolist()
        for view, x in half.features.items():
            off = np.abs(copy.features[view] - x)
            if view == "fac" or (view == "pix" and np.array_equal(x, np.round(x))):
                assert not off.any()
            elif view == "mor":
                assert off.max() < 1e-8
            elif view != "pix":
                assert (off <= span[view] / 131000).all()


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is absent; set MMROBUST_DATA")
def test_real_file():
    data = ready(REAL, validation=0.1)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 1440,
        "val": 160,
        "test": 400,
    }
    random = ready(REAL, split="random", validation=0)
    assert {name: len(split) for name, split in random.splits.items()} == {"train": 1600, "test": 400}
    assert np.bincount(random.splits["test"].targets).tolist() == [40] * 10


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is absent; set MMROBUST_DATA")
def test_the_packages_copy_is_of_the_real_file():
    assert_copied(read_parts(REAL), EMBEDDED)
