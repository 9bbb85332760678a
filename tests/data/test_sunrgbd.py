import os
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from mmrobust.data.families.sunrgbd_toolbox import (
    CLASSES,
    SCENES,
    label_array,
    only_file,
    read_splits,
    sample_name,
)
from mmrobust.data.split import Key
from mmrobust.data.sunrgbd import STATISTICS, depth_image
from mmrobust.errors import Problems, UserError
from mmrobust.prepare.synthetic.sunrgbd import make as make_sunrgbd
from mmrobust.prepare.synthetic.sunrgbd import rotated
from tests.data.sunrgbd_tree import prepare_sunrgbd
from tests.data.trees import problem, ready

DATA = Path(os.environ.get("MMROBUST_DATA", "data"))
TOOLBOX = "sunrgbd/SUNRGBDtoolbox"


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("official")
    make_sunrgbd(root / "sunrgbd")
    return root


@pytest.fixture
def tree(shared, tmp_path) -> Path:
    return shutil.copytree(shared, tmp_path / "official")


def test_numbers(shared):
    data = ready("sunrgbd", shared, "data.image_size=[24,32]")
    split = data.splits["test"]
    assert split.ids[1] == "kv2/kinect2data/000003_resize"
    found = split[Key(0, 1)]
    assert (found.target[:, :16] == 0).all()  # 1 + 3 % 3, from 0
    assert set(found.target.unique().tolist()) - {255} <= set(range(37))
    statistics = STATISTICS["refined"]
    depth = found.inputs["depth"][0].double() * statistics.std + statistics.mean
    assert np.allclose(depth[:2], 8000, atol=1e-2)  # 9 m, clipped
    near = depth[2:, :16].numpy()
    assert (near > 1019).all()
    assert (near < 1028).all()  # all 16 bits, also the low three of the millimetres
    assert len(np.unique(np.rint(near))) == 8
    assert data.spec.classes == CLASSES
    assert CLASSES[23:25] == ("fridge", "tv")
    raw = ready("sunrgbd", shared, "data.depth=raw", "data.image_size=[24,32]").splits["test"]
    assert 0.1 < (raw[Key(0, 1)].inputs["depth"] == 0).float().mean() < 0.3


def test_scenes(shared):
    data = ready("sunrgbd", shared, "data.task=scene", "data.validation=0")
    counts = {split: len(x) for split, x in data.splits.items()}
    assert counts == {"train": 12, "test": 6}  # without those of the kind idk
    assert {SCENES[t] for t in data.splits["test"].targets} == {"office", "bedroom", "kitchen"}
    assert data.spec.num_classes == 19


def test_root_may_be_the_folder_of_samples(tree):
    whole = ready("sunrgbd", tree)
    direct = ready("sunrgbd", tree, f"data.root={tree / 'sunrgbd/SUNRGBD'}")
    assert direct.fingerprint == whole.fingerprint
    (tree / "sunrgbd_meta").mkdir()
    for part in ("Metadata", "traintestSUNRGBD"):
        shutil.move(tree / TOOLBOX / part, tree / "sunrgbd_meta" / part)
    assert ready("sunrgbd", tree).fingerprint == whole.fingerprint


def test_what_is_missing_is_told_at_once(tree):
    shutil.rmtree(tree / TOOLBOX / "Metadata")
    (tree / TOOLBOX / "traintestSUNRGBD/allsplit.mat").unlink()
    told = problem("sunrgbd", tree)
    for name in ("allsplit.mat", "SUNRGBDMeta.mat", "SUNRGBD2Dseg.mat"):
        assert f"no {name} in any of {tree}" in told


def test_scene_files_are_missing(tree):
    (tree / "sunrgbd/SUNRGBD/kv2/kinect2data/000000_resize/scene.txt").unlink()
    keys = ["data.task=scene", "data.validation=0"]
    assert "no scene.txt in" in (told := problem("sunrgbd", tree, *keys))
    assert "1 (kv2/kinect2data/000000_resize)" in told
    assert len(ready("sunrgbd", tree, *keys, "data.corrupt=skip").splits["test"]) == 5


def test_labels_and_samples_do_not_fit(tree):
    with h5py.File(tree / TOOLBOX / "Metadata/SUNRGBD2Dseg.mat", "r+") as file:
        refs = file["SUNRGBD2Dseg/seglabel"][:-1]
        del file["SUNRGBD2Dseg/seglabel"]
        file["SUNRGBD2Dseg"].create_dataset("seglabel", data=refs, dtype=h5py.ref_dtype)
    assert "has 23 labels" in problem("sunrgbd", tree)


def test_cut_short(tree):
    os.truncate(tree / TOOLBOX / "Metadata/SUNRGBD2Dseg.mat", 5000)
    assert "SUNRGBD2Dseg.mat is cut short: 5000 of" in problem("sunrgbd", tree)


def test_prepared_labels(tree):
    prepare_sunrgbd(tree / "sunrgbd")
    path = tree / "sunrgbd/SUNRGBD/kv2/kinect2data/000003_resize/label/label.npy"
    np.save(path, np.full((24, 32), 38))
    data = ready("sunrgbd", tree)
    with pytest.raises(UserError, match=r"label\.npy has labels outside of 0 to 37: 38"):
        data.splits["test"][Key(0, 1)]
    np.save(path, np.zeros((24, 32, 1)))
    with pytest.raises(UserError, match=r"has shape \(24, 32, 1\), not \(height, width\)"):
        label_array(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match="cannot be read as an array"):
        label_array(path)
    path.unlink()
    assert "no label of: 1 (kv2/kinect2data/000003_resize" in problem("sunrgbd", tree)
    assert ready("sunrgbd", tree, "data.corrupt=skip").skipped == {"test": ["kv2/kinect2data/000003_resize"]}


def test_names():
    for path in (
        "/n/fs/sun3d/data/SUNRGBD/kv1/b3dodata/img_0063",
        "/data1/SUNRGBD//kv1//b3dodata/img_0063/",
        "D:\\SUNRGBD\\SUNRGBD\\kv1\\b3dodata\\img_0063",
        "kv1/b3dodata/img_0063",
    ):
        assert sample_name(path, 0) == "kv1/b3dodata/img_0063"
        assert sample_name(f"{path}/image/a.jpg", 2) == "kv1/b3dodata/img_0063"


def test_rotation(tmp_path):
    millimetres = np.array([[0, 1, 7, 8, 1234, 7999, 8000, 8191, 40000]])
    cv2.imwrite(str(tmp_path / "d.png"), rotated(millimetres))
    assert depth_image(tmp_path / "d.png").tolist() == np.minimum(millimetres, 8000).tolist()


@pytest.mark.data
@pytest.mark.skipif(
    not (DATA / "sunrgbd_meta").is_dir(), reason=f"{DATA} has no sunrgbd_meta; set MMROBUST_DATA"
)
def test_real_splits():
    problems = Problems()
    splits = read_splits(DATA / "sunrgbd_meta/traintestSUNRGBD/allsplit.mat", problems)
    assert problems == []
    assert {split: len(set(names)) for split, names in splits.items()} == {"train": 5285, "test": 5050}
    names = splits["train"] + splits["test"]
    sensors = [name.split("/")[0] for name in names]
    counted = {sensor: sensors.count(sensor) for sensor in sorted(set(sensors))}
    assert counted == {"kv1": 2003, "kv2": 3784, "realsense": 1159, "xtion": 3389}
    for split, file in (("train", "training"), ("test", "testing")):
        rows = (DATA / f"sunrgbd_meta/sunrgbd_{file}_images.txt").read_text().split()
        assert sorted(sample_name(row, 2) for row in rows) == splits[split]


@pytest.mark.data
@pytest.mark.skipif(
    not (DATA / "sunrgbd_sample").is_dir(), reason=f"{DATA} has no sunrgbd_sample; set MMROBUST_DATA"
)
@pytest.mark.parametrize(
    ("name", "size", "nearest", "farthest", "holes"),
    [
        ("2014-12-18_11-31-54_260595134347", (530, 730), 640, 3783, 0.13),
        ("img_0063", (427, 561), 1430, 2525, 0.32),
    ],
)
def test_real_frames(name, size, nearest, farthest, holes):
    folder = DATA / "sunrgbd_sample" / name
    raw, refined = (depth_image(only_file(folder / part, ".png", {})) for part in ("depth", "depth_bfx"))
    assert raw.shape == refined.shape == size
    assert raw[raw > 0].min() == pytest.approx(nearest, abs=5)
    assert raw.max() == farthest
    assert (raw == 0).mean() == pytest.approx(holes, abs=0.01)
    assert (refined == 0).sum() == 0
    assert (folder / "scene.txt").read_text().strip() == "office"
