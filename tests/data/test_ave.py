import logging
import os
import shutil
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mmrobust.data.ave import first_rows
from mmrobust.data.families.ave_lists import CLASSES, read_rows, read_splits
from mmrobust.data.split import Key
from mmrobust.errors import Problems
from tests.data.ave_tree import write_sound
from tests.data.clip_tree import write_clip
from tests.data.trees import dataset, refused

META = Path(os.environ.get("MMROBUST_DATA", "data")) / "ave_meta"
NAME = "ave"
ready, problem = partial(dataset, NAME), partial(refused, NAME)


def append(path: Path, row: str) -> None:
    path.write_text(f"{path.read_text()}{row}\n")


def test_samples(shared):
    data = ready(shared)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 18, "val": 9, "test": 9}
    assert data.spec.classes == CLASSES
    assert data.spec.modalities["audio"].shape == (1, 65, 81)
    sample = data.splits["test"][Key(0, 0)]
    assert sample.inputs["visual"].shape == (3, 2, 16, 16)
    assert CLASSES[sample.target] == "Race car, auto racing"
    assert data.splits["test"].ids[0] == "test/-test__0000"


def test_published_shape(shared):
    data = ready(shared, sample_rate=22050, seconds=10, n_fft=512, hop=353)
    assert data.splits["test"][Key(0, 0)].inputs["audio"].shape == (1, 257, 625)


def test_header_is_optional(tree):
    before = ready(tree).fingerprint
    for name in ("train", "val", "test"):
        path = tree / f"{name}Set.txt"
        path.write_text("\ufeff" + "\r\n".join(path.read_text().splitlines()[1:]))
    assert ready(tree).fingerprint == before


def test_first_row_of_an_id_counts(tree, caplog):
    append(tree / "trainSet.txt", "Cat&-train_0000&good&0&10")
    with caplog.at_level(logging.INFO, "mmrobust.data"):
        train = ready(tree).splits["train"]
    assert len(train) == 18
    assert CLASSES[train.targets[0]] == "Race car, auto racing"
    assert "train: 1 rows of ids listed before" in caplog.text


def test_overlap(tree, caplog):
    append(tree / "trainSet.txt", "Cat&-test__0000&good&0&10")
    with caplog.at_level(logging.INFO, "mmrobust.data"):
        assert len(ready(tree).splits["train"]) == 19
        assert "also in val or test: 1 (-test__0000); data.drop_overlap=false keeps them" in caplog.text
        assert len(ready(tree, drop_overlap=True).splits["train"]) == 18
        assert "drop_overlap=true leaves them out" in caplog.text


def test_event(tree):
    write_clip(tree / "Audio/long_______.wav", tree / "Image-01-FPS/long_______", 0, 1, (24, 32), frames=10)
    write_sound(tree / "Audio/long_______.wav", 10)
    append(tree / "testSet.txt", "Cat&long_______&good&6&8")
    append(tree / "testSet.txt", "Cat&-val___0000&good&0&0")
    clip = ready(tree, part="event").splits["test"].clips[-2]
    assert [path.stem for path in clip.frames] == ["00007", "00008"]
    split = ready(tree, part="event", seconds=4).splits["test"]
    wave = split.sound(clip)
    assert wave[0] == pytest.approx(0.3, abs=1e-3)  # second 6 of a ramp from 0 to 0.5
    assert wave[16000] == pytest.approx(0.3, abs=1e-3)  # tiled
    assert split.clips[-1].part is None  # an event of 0 s: the whole clip
    assert "data.part=start is not a part" in problem(tree, part="start")


def test_prepared_frames_of_events(tree):
    shutil.copytree(tree / "Image-01-FPS", tree / "Image-01-FPS-SE")
    for path in (tree / "trainSet.txt", tree / "valSet.txt", tree / "testSet.txt"):
        path.write_text(path.read_text().replace("&0&10", "&0&1"))
    assert [len(ready(tree, part=part).splits["test"].clips[0].frames) for part in ("clip", "event")] == [
        3,
        3,
    ]
    shutil.rmtree(tree / "Image-01-FPS-SE")
    assert len(ready(tree, part="event").splits["test"].clips[0].frames) == 1


def test_what_is_missing_is_told(tree):
    (tree / "Audio/-test__0000.wav").unlink()
    shutil.rmtree(tree / "Image-01-FPS/_test__1000")
    told = problem(tree)
    assert f"no <id>.wav in {tree / 'Audio'}: 1 (-test__0000); run python -m mmrobust.prepare ave" in told
    assert "no <id>/*.jpg in" in told
    assert "fps=1;" in told
    assert told.endswith("data.corrupt=skip")
    left = ready(tree, corrupt="skip")
    assert left.skipped == {"test": ["test/-test__0000", "test/_test__1000"]}
    assert "trainSet.txt" in problem(tree / "nowhere")


def test_lists_are_audited(tree):
    append(tree / "valSet.txt", "Dog&x&good&0&10")
    append(tree / "valSet.txt", "Bark&x&good&7&5")
    (tree / "testSet.txt").unlink()
    told = problem(tree)
    assert "2 (line 11: Dog&x&good&0&10, line 12: Bark&x&good&7&5)" in told
    assert f"no lists in {tree}: 1 (testSet.txt)" in told
    for name in ("trainSet.txt", "valSet.txt"):
        (tree / name).unlink()
    assert "trainSet.txt, valSet.txt, testSet.txt" in problem(tree)
    (tree / "Annotations.txt").write_text("Bark&x&good&0&10\n")
    assert "train_order.h5, val_order.h5, test_order.h5" in problem(tree)


def write_orders(root: Path, orders: dict[str, list[int]]) -> None:
    for name, order in orders.items():
        with h5py.File(root / f"{name}_order.h5", "w") as file:
            file["order"] = np.array(order)


def test_orders(tree):
    plain = ready(tree)
    rows = [
        line
        for name in ("val", "test", "train")
        for line in (tree / f"{name}Set.txt").read_text().splitlines()[1:]
    ]
    for name in ("train", "val", "test"):
        (tree / f"{name}Set.txt").unlink()
    (tree / "Annotations.txt").write_text("Category&VideoID&Quality&StartTime&EndTime\n" + "\n".join(rows))
    orders = {"val": range(9), "test": range(9, 18), "train": range(18, 36)}
    write_orders(tree, {name: list(order) for name, order in orders.items()})
    data = ready(tree)
    assert data.fingerprint == plain.fingerprint
    one, other = data.splits["train"][Key(0, 4)], plain.splits["train"][Key(0, 4)]
    assert torch.equal(one.inputs["audio"], other.inputs["audio"])
    write_orders(tree, {"test": [9, 36]})
    assert "numbers beyond the 36 rows: 1 (36)" in problem(tree)
    (tree / "test_order.h5").write_bytes(b"cut")
    assert "test_order.h5 is no HDF5 file" in problem(tree)


@pytest.mark.data
@pytest.mark.skipif(not META.is_dir(), reason=f"{META} is absent; set MMROBUST_DATA")
class TestRealLists:
    def test_annotations(self):
        problems = Problems()
        rows = read_rows(META / "Annotations.txt", problems)
        assert problems == []
        assert (len(rows), len({row.video for row in rows})) == (4143, 4097)
        order = list(dict.fromkeys(row.target for row in rows))
        assert order == list(range(28))  # the classes stand in the order of their first appearance
        assert sum((row.start, row.end) == (0, 10) for row in rows) == 2750

    def test_splits(self):
        problems = Problems()
        splits = read_splits(META, problems)
        assert problems == []
        assert {name: len(rows) for name, rows in splits.items()} == {"train": 3339, "val": 402, "test": 402}
        ids = {name: set(first_rows(name, rows)) for name, rows in splits.items()}
        assert {name: len(videos) for name, videos in ids.items()} == {"train": 3312, "val": 401, "test": 402}
        assert (len(ids["train"] & ids["test"]), len(ids["train"] & ids["val"])) == (8, 10)
        assert not ids["val"] & ids["test"]
