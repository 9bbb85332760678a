import csv
import logging
import os
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch

from mmrobust.data.families.cremad_lists import EMOTIONS, read_labels
from mmrobust.data.split import Key
from mmrobust.errors import Problems, UserError
from tests.data.cremad_tree import make_cremad
from tests.data.trees import dataset, refused

META = Path(os.environ.get("MMROBUST_DATA", "data")) / "cremad_meta"
NAME = "cremad"
ready, problem = partial(dataset, NAME), partial(refused, NAME)


# What comes out


def test_samples(shared):
    data = ready(shared, frames=2)
    assert data.spec.classes == EMOTIONS
    assert data.spec.num_train == len(data.splits["train"]) == 18
    assert {m: x.kind for m, x in data.spec.modalities.items()} == {"audio": "spectrogram", "visual": "video"}
    assert data.spec.modalities["audio"].shape == (1, 257, 188)
    for split in data.splits.values():
        assert split.present.all()
        sample = split[Key(0, 0)]
        for name, modality in data.spec.modalities.items():
            assert sample.inputs[name].shape == modality.shape
            assert sample.inputs[name].dtype == torch.float32
        assert sample.inputs["audio"].min() >= np.log(1e-7) - 1e-4
        assert sample.inputs["audio"].max() < np.log(512)
        assert sample.inputs["visual"].abs().max() < 3
        assert EMOTIONS[sample.target] == split.ids[0][9:12]


def test_shape_follows_the_keys(shared):
    data = ready(shared, frames=3, image_size=32, sample_rate=16000, seconds=0.5, n_fft=128, hop=100)
    sample = data.splits["test"][Key(0, 0)]
    assert sample.inputs["audio"].shape == data.spec.modalities["audio"].shape == (1, 65, 81)
    assert sample.inputs["visual"].shape == data.spec.modalities["visual"].shape == (3, 3, 32, 32)


def test_loaders(shared):
    data = ready(shared, image_size=32)
    batches = list(data.train_dataloader())
    assert len(batches) == 18 // 4
    assert batches[0].inputs["visual"].shape == (4, 3, 1, 32, 32)
    assert sum(len(b.target) for b in data.test_dataloader()) == 24


def equal(one, other) -> dict[str, bool]:
    return {name: torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs}


def test_augmentation_is_a_function_of_run_seed_and_key(shared):
    train = ready(shared).splits["train"]
    first = train[Key(0, 3)]
    train[Key(5, 1)]
    assert all(equal(train[Key(0, 3)], first).values())
    assert all(equal(ready(shared).splits["train"][Key(0, 3)], first).values())
    assert equal(train[Key(1, 3)], first) == {"audio": True, "visual": False}
    assert equal(ready(shared, run_seed=1).splits["train"][Key(0, 3)], first)["visual"] is False


def test_workers_change_nothing(shared):
    here, there = (
        next(iter(ready(shared, image_size=32, workers=workers).train_dataloader())) for workers in (0, 2)
    )
    assert here.ids == there.ids
    assert all(torch.equal(here.inputs[m], there.inputs[m]) for m in here.inputs)


def test_validation_and_testing_are_not_augmented(shared):
    for name in ("val", "test"):
        split, other = (ready(shared, run_seed=seed).splits[name] for seed in (0, 1))
        assert all(equal(split[Key(0, 0)], other[Key(7, 0)]).values())


def test_frames_of_a_clip_share_their_crop(tree):
    stem = ready(tree).splits["train"].ids[0]
    paths = sorted((tree / "Image-01-FPS" / stem).iterdir())
    for path in paths[1:]:
        shutil.copy(paths[0], path)
    visual = ready(tree, frames=3).splits["train"][Key(0, 0)].inputs["visual"]
    assert torch.equal(visual[:, 0], visual[:, 1])
    assert torch.equal(visual[:, 0], visual[:, 2])


def test_test_frames_are_evenly_spaced_and_repeat(shared):
    middle = ready(shared).splits["test"][Key(0, 0)].inputs["visual"]
    three = ready(shared, frames=3).splits["test"][Key(0, 0)].inputs["visual"]
    six = ready(shared, frames=6).splits["test"][Key(0, 0)].inputs["visual"]
    assert torch.equal(middle, three[:, 1:2])
    assert torch.equal(six, three.repeat_interleave(2, 1))
    assert not torch.equal(three[:, 0], three[:, 1])


def test_standardise(shared):
    x = ready(shared, standardise=True).splits["test"][Key(0, 0)].inputs["audio"]
    assert abs(x.mean()) < 1e-4
    assert abs(x.std() - 1) < 1e-3


@pytest.mark.parametrize(
    ("wave", "rate"),
    [
        (np.zeros(16000), 16000),
        (np.ones((16000, 2)) * 0.1, 16000),
        (np.sin(np.arange(1600)), 16000),
        (np.sin(np.arange(48000 * 4)), 48000),
    ],
    ids=["silent", "stereo", "0.1 s", "48 kHz, 4 s"],
)
def test_unusual_sounds(tree, wave, rate):
    data = ready(tree)
    soundfile.write(tree / "AudioWAV" / f"{data.splits['test'].ids[0]}.wav", wave, rate)
    audio = data.splits["test"][Key(0, 0)].inputs["audio"]
    assert audio.shape == (1, 257, 188)
    assert audio.isfinite().all()


def test_damaged_files_are_named(tree):
    data = ready(tree)
    stem = data.splits["test"].ids[0]
    sound, image = tree / "AudioWAV" / f"{stem}.wav", tree / "Image-01-FPS" / stem / "00030.jpg"
    whole = sound.read_bytes()
    sound.write_bytes(whole[:5000])
    with pytest.raises(UserError, match=f"{stem}.wav is cut short"):
        data.splits["test"][Key(0, 0)]
    sound.write_bytes(whole)
    image.write_bytes(image.read_bytes()[:800])
    with pytest.raises(UserError, match=f"{stem}/00030.jpg is cut short"):
        data.splits["test"][Key(0, 0)]


# Splits


def test_validation_is_disjoint_and_stratified(shared):
    data = ready(shared)
    ids = {name: set(split.ids) for name, split in data.splits.items()}
    with (shared / "train.csv").open() as file:
        listed = [stem for stem, _ in csv.reader(file)]
    assert ids["train"] | ids["val"] == set(listed)
    assert not ids["train"] & ids["val"]
    assert np.bincount(data.splits["val"].targets).tolist() == [1] * 6
    assert set(ready(shared, run_seed=9).splits["val"].ids) == ids["val"]
    assert set(ready(shared, seed=1).splits["val"].ids) != ids["val"]


def test_no_validation(shared):
    assert list(ready(shared, validation=0).splits) == ["train", "test"]
    assert "data.validation=0.01 of 24 clips leaves 24 for training and 0" in problem(shared, validation=0.01)
    assert "data.validation=1" in problem(shared, validation=1)


def test_same_actors_in_train_and_test_are_noted(shared, caplog):
    with caplog.at_level(logging.INFO, "mmrobust.data"):
        ready(shared)
    assert "4 of 4 actors occur in train and test; data.split=actor" in caplog.text


@pytest.mark.parametrize("lists", [True, False])
def test_actor_split(tmp_path, lists):
    make_cremad(tmp_path, actors=7)
    if not lists:
        (tmp_path / "train.csv").unlink()
        (tmp_path / "test.csv").unlink()
    splits = {seed: ready(tmp_path, split="actor", seed=seed).splits for seed in (0, 1)}
    actors = {name: {stem[:4] for stem in split.ids} for name, split in splits[0].items()}
    assert {name: len(a) for name, a in actors.items()} == {"train": 5, "val": 1, "test": 1}
    assert len(set.union(*actors.values())) == 7
    assert sum(len(split) for split in splits[0].values()) == 7 * 2 * 6
    assert splits[0]["test"].ids != splits[1]["test"].ids
    train = splits[0]["train"]
    assert [EMOTIONS[target] for target in train.targets] == [stem[9:12] for stem in train.ids]


def test_actor_split_needs_actors(tmp_path):
    make_cremad(tmp_path, actors=2)
    assert "needs 3 actors, found 2" in problem(tmp_path, split="actor")
    assert "data.split=speaker is not a split" in problem(tmp_path, split="speaker")


# What is wrong with the files


def test_all_problems_are_told_at_once(tree):
    data = ready(tree)
    for stem in data.splits["train"].ids[:5]:
        (tree / "AudioWAV" / f"{stem}.wav").unlink()
    gone, empty = data.splits["test"].ids[:2]
    shutil.rmtree(tree / "Image-01-FPS" / gone)
    for path in (tree / "Image-01-FPS" / empty).iterdir():
        path.unlink()
    (tree / "AudioWAV" / f"{gone}.wav").write_text("version https://git-lfs.github.com/spec/v1\n")
    told = problem(tree)
    assert "no <id>.wav" in told
    assert f"5 ({', '.join(data.splits['train'].ids[:3])}, …)" in told.replace("\n", "")
    assert f"git-LFS pointer as <id>.wav in {tree / 'AudioWAV'}: 1 ({gone}); run `git lfs pull`" in told
    assert f"no <id>/*.jpg in {tree / 'Image-01-FPS'}: 2 ({gone}, {empty}); run python -m" in told
    assert "mmrobust.prepare cremad" in told
    assert "fps=1;" in told


def test_frames_at_another_rate(tree):
    assert "Image-03-FPS: 48 (" in problem(tree, fps=3)
    (tree / "Image-01-FPS").rename(tree / "Image-03-FPS")
    assert len(ready(tree, fps=3).splits["test"]) == 24


def test_lists_are_needed(tree):
    (tree / "test.csv").unlink()
    assert f"no {tree / 'test.csv'}" in problem(tree)
    assert f"no {tree / 'test.csv'}" in problem(tree, split="actor")
    (tree / "test.csv").touch()
    assert f"{tree / 'test.csv'} names no clips" in problem(tree)
    assert "train.csv" in problem(tree / "nowhere")
    assert "AudioWAV" in problem(tree / "nowhere", split="actor")


def test_lists_are_audited(tree):
    train, test = tree / "train.csv", tree / "test.csv"
    first, second = train.read_text().splitlines()[:2]
    last = test.read_text().splitlines()[0]
    train.write_text(train.read_text() + f"{first}\n\n{last}\nnonsense\n{second[:-3]}JOY\n")
    told = problem(tree)
    assert f"{train}: listed before: 1 (line 25: {first[:15]})" in told
    assert f"in train.csv and test.csv: 1 ({last[:15]})" in told
    assert f"2 (line 28: nonsense, line 29: {second[:-3]}JOY)" in told


def test_byte_order_mark_and_windows_lines(tree):
    path = tree / "train.csv"
    before = ready(tree).splits["train"].ids
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert ready(tree).splits["train"].ids == before


def test_hidden_files_are_no_frames(tree):
    stem = ready(tree).splits["test"].ids[0]
    (tree / "Image-01-FPS" / stem / "._00030.jpg").write_bytes(b"left by macOS")
    assert all(path.name[0] != "." for path in ready(tree).splits["test"].clips[0].frames)


# The real lists


@pytest.mark.data
@pytest.mark.skipif(not META.is_dir(), reason=f"{META} is absent; set MMROBUST_DATA")
class TestRealLists:
    def test_lists(self):
        problems = Problems()
        train, test = (read_labels(META / f"{name}.csv", problems) for name in ("train", "test"))
        assert problems == []
        assert (len(train), len(test)) == (6698, 744)
        assert not train.keys() & test.keys()
        assert len({s[:4] for s in train} & {s[:4] for s in test}) == 91
        assert all(EMOTIONS[label] == stem[9:12] for stem, label in (train | test).items())
        assert np.bincount([*train.values(), *test.values()]).tolist() == [1087, *[1271] * 5]

    def test_pointer_of_a_clone_without_lfs(self, tree):
        stem = ready(tree).splits["test"].ids[0]
        shutil.copy(META / "example_lfs_pointer_1001_DFA_ANG_XX.wav", tree / "AudioWAV" / f"{stem}.wav")
        assert f"only a git-LFS pointer as <id>.wav in {tree / 'AudioWAV'}: 1 ({stem})" in problem(tree)

    def test_whole_tree_splits(self, tmp_path):
        """All 7,442 clips, each sound and frame a link to the same file."""
        sound, image = tmp_path / "sound.wav", tmp_path / "image.jpg"
        soundfile.write(sound, np.zeros(1600), 16000)
        cv2.imwrite(str(image), np.zeros((36, 48, 3), np.uint8))
        (tmp_path / "AudioWAV").mkdir()
        for name in ("train", "test"):
            shutil.copy(META / f"{name}.csv", tmp_path)
            for stem in read_labels(META / f"{name}.csv", Problems()):
                (tmp_path / "AudioWAV" / f"{stem}.wav").hardlink_to(sound)
                folder = tmp_path / "Image-01-FPS" / stem
                folder.mkdir(parents=True)
                (folder / "00000.jpg").hardlink_to(image)
        sizes = {name: len(split) for name, split in ready(tmp_path, validation=0.1).splits.items()}
        assert sizes == {"train": 6028, "val": 670, "test": 744}
        splits = ready(tmp_path, split="actor").splits
        actors = {name: {stem[:4] for stem in split.ids} for name, split in splits.items()}
        assert {name: len(a) for name, a in actors.items()} == {"train": 63, "val": 14, "test": 14}
        assert sum(len(split) for split in splits.values()) == 7442
