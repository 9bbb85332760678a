import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from mmrobust.data.families.indoor_classes import CLASSES_13, CLASSES_40, LABELS_13
from mmrobust.data.families.nyuv2_mat import SCENES, mapping_of, read_splits
from mmrobust.data.files.matlab import read_mat
from mmrobust.data.nyuv2 import MEAN, STD
from mmrobust.data.split import Key
from mmrobust.errors import Problems, UserError
from mmrobust.prepare.synthetic.nyuv2 import KINDS, MAP_CLASS
from mmrobust.prepare.synthetic.nyuv2 import make as make_nyuv2
from tests.data.nyuv2_tree import prepare_nyuv2
from tests.data.trees import problem, ready

META = Path(os.environ.get("MMROBUST_DATA", "data")) / "nyuv2_meta"
MAT = "nyuv2/nyu_depth_v2_labeled.mat"


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("official")
    make_nyuv2(root / "nyuv2")
    return root


@pytest.fixture
def tree(shared, tmp_path) -> Path:
    return shutil.copytree(shared, tmp_path / "official")


def test_numbers(shared):
    data = ready("nyuv2", shared, "data.image_size=[24,32]")
    split = data.splits["test"]
    assert split.ids[1] == "0006"
    found = split[Key(0, 1)]
    with h5py.File(shared / MAT) as file:
        rgb, metres, label = file["images"][5].T, file["depths"][5].T, file["labels"][5].T
    expected = np.concatenate([[255], MAP_CLASS - 1])[label]
    assert np.array_equal(found.target, expected)
    assert (found.target[0] == 255).all()  # the void border
    red = found.inputs["rgb"][0] * 0.229 + 0.485
    assert np.allclose(red * 255, rgb[..., 0], atol=1e-3)
    depth = found.inputs["depth"][0].double() * STD + MEAN
    assert np.allclose(depth, np.floor(metres * np.float32(1000)), atol=1e-2)  # mm
    assert data.spec.classes == CLASSES_40
    assert data.spec.modalities["depth"].kind == "depth"
    thirteen = ready("nyuv2", shared, "data.classes=13")
    expected = np.where(expected == 255, 255, np.array(LABELS_13)[expected % 40] - 1)
    assert np.array_equal(thirteen.splits["test"][Key(0, 1)].target, expected)
    assert thirteen.spec.classes == CLASSES_13


def test_raw_depth_stays_zero_where_there_is_none(shared):
    raw = ready("nyuv2", shared, "data.depth=raw", "data.image_size=[24,32]")
    depth = raw.splits["test"][Key(0, 1)].inputs["depth"][0]
    with h5py.File(shared / MAT) as file:
        holes = file["rawDepths"][5].T == 0
    assert holes.any()
    assert np.array_equal(depth == 0, holes)
    train = raw.splits["train"][Key(1, 2)].inputs["depth"]
    assert 0.05 < (train == 0).float().mean() < 0.4


def test_scenes(shared):
    data = ready("nyuv2", shared, "data.task=scene", "data.validation=0")
    assert data.spec.task == "classification"
    assert data.spec.classes == SCENES
    assert data.spec.modalities["rgb"].shape == (3, 224, 224)
    kinds = [KINDS[(int(name) - 1) % 5] for name in data.splits["test"].ids]
    expected = [SCENES.index(kind if kind in SCENES else "others") for kind in kinds]
    assert data.splits["test"].targets == expected
    sample = data.splits["train"][Key(0, 0)]
    assert sample.inputs["depth"].shape == (1, 224, 224)
    batch = next(iter(data.loader("train", shuffle=True)))
    assert batch.target.shape == (4,)


def test_forms_are_named(shared, tmp_path, caplog):
    both = shutil.copytree(shared, tmp_path / "both")
    with caplog.at_level("INFO"):
        ready("nyuv2", both)
        assert f"form on disk, in {both / 'nyuv2'}: official" in caplog.text
        prepare_nyuv2(shared / "nyuv2", both / "nyuv2")
        caplog.clear()
        ready("nyuv2", both)
        assert f"form on disk, in {both / 'nyuv2'}: prepared" in caplog.text
        caplog.clear()
        ready("nyuv2", both, "data.task=scene")
        assert "official" in caplog.text
    (both / MAT).unlink()
    told = problem("nyuv2", both, "data.task=scene")
    assert "kinds of scenes are in nyu_depth_v2_labeled.mat alone, which is not here" in told


def test_prepared_with_40_labels_gives_13(shared, tmp_path):
    prepare_nyuv2(shared / "nyuv2", tmp_path / "nyuv2")
    whole = ready("nyuv2", tmp_path, "data.classes=13").splits["test"][Key(0, 0)].target
    for split in ("train", "test"):
        shutil.rmtree(tmp_path / "nyuv2" / split / "labels_13")
    assert torch.equal(ready("nyuv2", tmp_path, "data.classes=13").splits["test"][Key(0, 0)].target, whole)
    (tmp_path / "nyuv2/test.txt").write_text("0003\nfoo\n")
    assert "test.txt: not numbers of frames: 1 (foo)" in problem("nyuv2", tmp_path)


def test_metadata_may_lie_beside(tree):
    (tree / "nyuv2_meta").mkdir()
    for name in ("splits.mat", "classMapping40.mat"):
        shutil.move(tree / "nyuv2" / name, tree / "nyuv2_meta" / name)
    ready("nyuv2", tree)
    for name in ("splits.mat", "classMapping40.mat"):
        (tree / "nyuv2_meta" / name).unlink()
    told = problem("nyuv2", tree)
    assert f"no splits.mat in any of {tree / 'nyuv2'}, {tree / 'nyuv2_meta'}" in told
    assert "no classMapping40.mat in any of" in told


@pytest.mark.parametrize("axes", [(0, 3, 2, 1), (3, 2, 1, 0), (0, 1, 3, 2)])
def test_reversed_axes(axes, tree):
    with h5py.File(tree / MAT, "r+") as file:
        for name in ("images", "depths", "labels"):
            array = file[name][()]
            order = axes if array.ndim == 4 else [a - (a > 1) for a in axes if a != 1]
            del file[name]
            file[name] = array.transpose(order)
    told = problem("nyuv2", tree)
    assert "as MATLAB stores them (1449 × 3 × 640 × 480): the axes are reversed" in told
    assert "has images " in told


def test_sizes_of_arrays_differ(tree):
    with h5py.File(tree / MAT, "r+") as file:
        depths = file["depths"][:, :-1]
        del file["depths"]
        file["depths"] = depths
    assert "depths 24 × 31 × 24" in problem("nyuv2", tree)


def test_cut_short(tree):
    size = (tree / MAT).stat().st_size
    os.truncate(tree / MAT, size // 2)
    assert f"{tree / MAT} is cut short: {size // 2} of {size} bytes; get it again" in problem("nyuv2", tree)
    (tree / MAT).write_bytes(b"")
    assert "is no HDF5 file" in problem("nyuv2", tree)


def test_labels_out_of_range_and_void(tree):
    with h5py.File(tree / MAT, "r+") as file:
        file["labels"][2, 3, 3] = 895
        file["labels"][5] = 0
    data = ready("nyuv2", tree)
    for row, told in ((0, r"labels\[2\] of .* has labels outside of 0 to 894: 895"), (1, "all are void")):
        with pytest.raises(UserError, match=told):
            data.splits["test"][Key(0, row)]
    with pytest.raises(UserError, match=r"sample 0003: labels\[2\]"):
        list(data.loader("test"))
    assert ready("nyuv2", tree, "data.corrupt=skip").skipped == {"test": ["0003", "0006"]}


def test_splits_out_of_range(tree):
    numbers = {"trainNdxs": [[1], [2], [25]], "testNdxs": [[0], [2], [4]]}
    scipy.io.savemat(tree / "nyuv2/splits.mat", {k: np.array(v, np.uint16) for k, v in numbers.items()})
    told = problem("nyuv2", tree)
    assert "trainNdxs beyond the frames 1 to 24: 1 (25)" in told
    assert "testNdxs beyond the frames 1 to 24: 1 (0)" in told
    assert "in train and test: 1 (0002)" in told


@pytest.mark.data
@pytest.mark.skipif(not META.is_dir(), reason=f"{META} is absent; set MMROBUST_DATA")
def test_real_metadata():
    problems = Problems()
    splits = read_splits(META / "splits.mat", 1449, problems)
    assert problems == []
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 795, "test": 654}
    assert splits["train"][:8] == [2, 3, 4, 5, 6, 7, 9, 10]
    assert splits["test"][:4] == [0, 1, 8, 13]
    assert len({*splits["train"], *splits["test"]}) == 1449
    for classes in (40, 13):
        table = mapping_of(META / "classMapping40.mat", classes)
        assert table.shape == (895,)
        assert table[0] == 255
        assert set(table[1:].tolist()) == set(range(classes))
    (names,) = read_mat(META / "classMapping40.mat", "className", squeeze=True)
    assert tuple(names) == CLASSES_40
    (mapping,) = read_mat(META / "class13Mapping.mat", "classMapping13", squeeze=True)
    assert tuple(mapping.labels13) == LABELS_13
    assert tuple(mapping.classNames) == CLASSES_13


@pytest.mark.data
@pytest.mark.skipif(not (META.parent / "nyuv2/train.txt").is_file(), reason="no nyuv2; set MMROBUST_DATA")
def test_real_frames_with_jpegs_for_colour():
    data = ready("nyuv2", META.parent, "data.image_size=[96,128]", "data.class_weights=none")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 715, "val": 80, "test": 654}
    for name, split in data.splits.items():
        sample = split[Key(0, 7)]
        assert sample.inputs["rgb"].shape == (3, 96, 128)
        assert sample.inputs["depth"].shape == (1, 96, 128)
        assert tuple(sample.target.shape) == ((96, 128) if name == "train" else (192, 256))
