import os
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmrobust.data.families.casia_surf_lists import MODALITIES, read_triplets
from mmrobust.data.split import Key
from mmrobust.errors import Problems, UserError
from tests.data.trees import dataset, refused

META = Path(os.environ.get("MMROBUST_DATA", "data")) / "casia_surf_meta"
NAME = "casia_surf"
ready, problem = partial(dataset, NAME), partial(refused, NAME)
LISTS = {"train": "train_list.txt", "val": "val_private_list.txt", "test": "test_private_list.txt"}


def test_samples(shared):
    data = ready(shared)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 16, "val": 8, "test": 8}
    assert list(data.spec.modalities) == list(MODALITIES)
    assert {x.shape for x in data.spec.modalities.values()} == {(3, 112, 112)}
    test = data.splits["test"]
    assert test.targets == [0, 1] * 4
    assert test.ids[1] == "Testing/0000/000001-color.jpg"
    live = test[Key(0, 1)].inputs
    assert live["rgb"][2, :, :40].mean() == pytest.approx(
        (220 - 127.5) / 128, abs=0.05
    )  # red, the last of bgr
    assert live["depth"][0, :, -40:].mean() == pytest.approx((160 - 127.5) / 128, abs=0.05)
    assert "data.channels=grb is no order" in problem(shared, channels="grb")
    rgb = ready(shared, channels="rgb").splits["test"][Key(0, 1)].inputs["rgb"]
    assert torch.equal(rgb.flip(0), live["rgb"])


def test_geometry_is_shared(shared):
    """The bright left of all three goes the same way."""
    train = ready(shared).splits["train"]
    seen = []
    for epoch in range(12):
        raw = train.augment(train.read(Key(epoch, 1)), Key(epoch, 1))
        assert {x.shape for x in raw.values()} == {(112, 112, 3)}
        red = raw["rgb"][..., 0] > 190
        for other in (raw["depth"], raw["ir"]):
            assert (red != (other[..., 0] > 190)).mean() < 0.03
        seen.append(red)
    assert len({mask.tobytes() for mask in seen}) == 12
    assert any(mask[:, 0].mean() > 0.5 for mask in seen)
    assert any(mask[:, -1].mean() > 0.5 for mask in seen)  # flipped


def test_augmentation_is_a_function_of_run_seed_and_key(shared):
    one, other = (ready(shared, run_seed=seed).splits for seed in (0, 1))
    same = ready(shared).splits["train"][Key(2, 1)].inputs["ir"]
    assert torch.equal(one["train"][Key(2, 1)].inputs["ir"], same)
    assert not torch.equal(one["train"][Key(3, 1)].inputs["ir"], same)
    assert not torch.equal(other["train"][Key(2, 1)].inputs["ir"], same)
    assert torch.equal(one["test"][Key(0, 1)].inputs["ir"], other["test"][Key(5, 1)].inputs["ir"])


def test_commas_header_and_resized_names(tree):
    plain = ready(tree)
    path = tree / "train_list.txt"
    rows = path.read_text().replace("/depth/1.jpg", "/depth/1_resized.jpg").replace(" ", ",")
    path.write_text("rgb,depth,ir,label\n" + rows)
    train = ready(tree).splits["train"]
    assert train.files == plain.splits["train"].files
    resized = train.files[0][1].with_stem("1_resized")
    shutil.copy(train.files[0][1], resized)
    assert ready(tree).splits["train"].files[0][1] == resized


def test_no_validation(shared):
    assert list(ready(shared, lists={**LISTS, "val": None}).splits) == ["train", "test"]
    assert "data.lists.test is empty" in problem(shared, lists={**LISTS, "test": None})
    assert "data.lists has dev" in problem(shared, lists={**LISTS, "dev": "x"})


def test_lists_are_audited(tree):
    path = tree / "val_private_list.txt"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows, rows[0], rows[1][:-2], rows[2][:-1] + "2"]))
    (tree / "test_private_list.txt").unlink()
    told = problem(tree)
    assert f"listed before: 1 (line 9: {rows[0].split()[0]})" in told
    assert f"2 (line 10: {rows[1][:-2]}, line 11: {rows[2][:-1]}2); take the list with labels" in told
    assert f"no {tree / 'test_private_list.txt'}" in told
    assert "the lists lie" in problem(tree / "nowhere")


def test_missing_and_damaged_images_are_named(tree):
    test = ready(tree).splits["test"]
    gone, cut = test.files[0][1], test.files[1][2]
    gone.unlink()
    told = problem(tree)
    assert f"test_private_list.txt: not in {tree}: 1 (Testing/0000/000000-depth.jpg)" in told
    assert told.endswith("data.corrupt=skip")
    cut.write_bytes(cut.read_bytes()[:300])
    with pytest.raises(UserError, match=r"000001-ir\.jpg"):
        test[Key(0, 1)]
    left = ready(tree, corrupt="skip")
    assert left.skipped == {"test": ["Testing/0000/000000-color.jpg", "Testing/0000/000001-color.jpg"]}


@pytest.mark.data
@pytest.mark.skipif(not META.is_dir(), reason=f"{META} is absent; set MMROBUST_DATA")
@pytest.mark.parametrize(
    ("name", "spoof", "live"),
    [
        ("fold1_train_list.csv", 13806, 6116),
        ("fold1_val_list_orgl.csv", 6518, 2826),
        ("phase1_list.txt", 6614, 2994),
    ],
)
def test_real_lists(name, spoof, live):
    problems = Problems()
    triplets = read_triplets(META, name, {}, problems)
    assert problems == []
    assert len(triplets) == spoof + live
    assert np.bincount([label for _, label in triplets.values()]).tolist() == [spoof, live]


def test_pictures_may_be_png(tree):
    before = ready(tree)
    one = before.splits["test"][Key(0, 0)].inputs
    for path in list(tree.glob("**/*.jpg")):
        cv2.imwrite(str(path.with_suffix(".png")), cv2.imread(str(path)))
        path.unlink()
    after = ready(tree)
    assert after.fingerprint == before.fingerprint
    other = after.splits["test"][Key(0, 0)].inputs
    assert all(torch.equal(one[m], other[m]) for m in one)
