import logging
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from mmrobust.config.compose import conf_folder
from mmrobust.data.families.kinetics_lists import identity, normalised, read_labels
from mmrobust.data.split import Key
from mmrobust.errors import Problems
from tests.data.clip_tree import write_clip
from tests.data.trees import dataset, refused

META = Path(os.environ.get("MMROBUST_DATA", "data")) / "kinetics_sounds_meta"
NAME = "kinetics_sounds"
ready, problem = partial(dataset, NAME), partial(refused, NAME)


def first(tree: Path, half: str = "train") -> tuple[Path, Path]:
    """Sound and frames of bowling's first clip."""
    sound = sorted((tree / f"audio/{half}/bowling").iterdir())[0]
    visual = {"train": "train_img", "test": "val_img"}[half]
    return sound, tree / f"visual/{visual}/Image-01-FPS/bowling/{sound.stem}"


def test_samples(shared, caplog):
    with caplog.at_level(logging.INFO, "mmrobust.data"):
        data = ready(shared)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 12, "val": 6, "test": 9}
    assert data.spec.classes == ("tapping_pen", "bowling", "playing_drums")  # the list's order
    assert data.spec.num_classes == 3
    assert "3 classes; of data.classes, not on disk: 1 (singing)" in caplog.text
    sample = data.splits["test"][Key(0, 0)]
    assert sample.inputs["visual"].shape == (3, 3, 16, 16)
    for split in data.splits.values():
        for clip, target in zip(split.clips, split.targets, strict=True):
            assert clip.sound.parent.name == data.spec.classes[target] == clip.frames[0].parts[-3]
            assert clip.sound.stem == clip.frames[0].parent.name


def test_published_shape(shared):
    data = ready(shared, sample_rate=16000, tiled=10, seconds=5, n_fft=256, hop=128)
    assert data.splits["train"][Key(0, 0)].inputs["audio"].shape == (1, 129, 626)
    assert "data.tiled=2 is shorter than data.seconds=5" in problem(shared, seconds=5)


def test_short_clips_are_left_out_with_their_sound(tree, caplog):
    sound, folder = first(tree)
    sorted(folder.iterdir())[0].unlink()
    with caplog.at_level(logging.INFO, "mmrobust.data"):
        data = ready(tree, validation=0)
    assert f"fewer than 3 frames are left out: 1 (bowling/{sound.stem})" in caplog.text
    assert len(data.splits["train"]) == 17
    assert all(clip.sound.stem == clip.frames[0].parent.name for clip in data.splits["train"].clips)
    assert len(ready(tree, validation=0, min_frames=2).splits["train"]) == 18


def test_what_has_no_partner_is_told(tree):
    sound, _ = first(tree)
    _, folder = first(tree, "test")
    sound.unlink()
    shutil.rmtree(folder)
    told = problem(tree)
    assert f"no <class>/<stem>.wav in {tree}/audio/{{train,test}}: 1 (train/bowling/{sound.stem})" in told
    assert f"1 (test/bowling/{folder.name}); " in told
    assert "mmrobust.prepare kinetics_sounds" in told
    assert told.endswith("data.corrupt=skip")
    skipped = ready(tree, corrupt="skip", validation=0).skipped
    assert skipped == {"train": [f"train/bowling/{sound.stem}"], "test": [f"test/bowling/{folder.name}"]}


def test_lists(tree, caplog):
    folders, lists = ready(tree, validation=0), ready(tree, validation=0, split="lists")
    assert {n: set(s.ids) for n, s in lists.splits.items()} == {
        n: set(s.ids) for n, s in folders.splits.items()
    }
    path = tree / "my_train.txt"
    rows = path.read_text().splitlines()
    path.write_text("\n".join(rows[1:]))
    assert len(ready(tree, validation=0, split="lists").splits["train"]) == 17
    path.write_text("\n".join([*rows[1:], rows[0][:-1] + "2"]))
    assert "label 2: bowling and tapping_pen" in problem(tree, split="lists")
    test = (tree / "my_test.txt").read_text().splitlines()[0]
    path.write_text("\n".join([*rows, rows[0], "nonsense", "gone_______00_7,10,0", test]))
    told = problem(tree, split="lists")
    assert f"listed before: 1 (line 19: {rows[0].split(',')[0]})" in told
    assert "1 (line 20: nonsense)" in told
    assert "1 (gone_______00_7)" in told
    assert "in my_train.txt and my_test.txt: 1 (" in told
    path.unlink()
    assert f"no {path}; put it there, or go without lists" in problem(tree, split="lists")


def test_overlap(tree, caplog):
    stem = first(tree, "test")[0].stem
    leaked = f"{stem[:11]}_000090_000100"
    folder = tree / f"visual/train_img/Image-01-FPS/bowling/{leaked}"
    write_clip(tree / f"audio/train/bowling/{leaked}.wav", folder, 0, 1, (24, 32))
    with caplog.at_level(logging.INFO, "mmrobust.data"):
        assert len(ready(tree, validation=0).splits["train"]) == 19
        assert f"1 (train/bowling/{leaked}); data.drop_overlap=false keeps them" in caplog.text
        assert len(ready(tree, validation=0, drop_overlap=True).splits["train"]) == 18


def test_other_mistakes(tree):
    assert "data.split=list is not a split" in problem(tree, split="list")
    assert "none of data.classes (1 (singing))" in problem(tree, classes=["singing"])
    assert "has no folder visual or audio" in problem(tree / "nowhere")
    shutil.rmtree(tree / "visual/train_img/Image-01-FPS/bowling")
    shutil.rmtree(tree / "audio/train/bowling")
    assert "classes with clips in test, none in train: 1 (bowling)" in problem(tree)


def test_names():
    assert normalised(" playing bass  guitar") == "playing_bass_guitar"
    assert identity("-a_b-c_d_e1_000007_000017") == identity("-a_b-c_d_e1_7") == ("-a_b-c_d_e1", 7)
    assert identity("mine") == ("mine", -1)


@pytest.mark.data
@pytest.mark.skipif(not META.is_dir(), reason=f"{META} is absent; set MMROBUST_DATA")
class TestRealLists:
    def test_lists(self):
        problems = Problems()
        train, test = (read_labels(META / f"my_{name}.txt", problems) for name in ("train", "test"))
        assert problems == []
        assert (len(train), len(test)) == (14799, 2597)
        counts = [np.bincount(list(labels.values())) for labels in (train, test)]
        assert [(len(c), c.min(), c.max()) for c in counts] == [(31, 197, 690), (31, 63, 92)]
        videos = [{identity(stem) for stem in labels} for labels in (train, test)]
        assert [len(v) for v in videos] == [14799, 2597]
        assert all(start >= 0 for v in videos for _, start in v)  # every name is understood
        assert not {video for video, _ in videos[0]} & {video for video, _ in videos[1]}  # nothing leaks

    def test_classes(self):
        names = [normalised(name) for name in (META / "class.txt").read_text().split(",")]
        ours = yaml.safe_load((conf_folder() / "data/kinetics_sounds.yaml").read_text())["classes"]
        assert len(ours) == 33
        assert ours == names
