import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrobust.data.families.depth_video import cropped_video, cut_out, normalised_depth
from mmrobust.data.families.motion import HIP, NECK, normalised_skeleton, resampled
from mmrobust.data.noise import Clean, Gaussian
from mmrobust.data.split import Key
from mmrobust.data.utd_mhad import CLASSES, MODALITIES, UTDMHAD
from mmrobust.errors import UserError
from tests.data.trees import dataset, refused
from tests.data.utd_mhad_tree import make_utd_mhad, skeleton, video, write

REAL = Path(os.environ.get("MMROBUST_DATA", "data")) / "utd_mhad"
NAME = "utd_mhad"
ready, problem = partial(dataset, NAME), partial(refused, NAME)


def subjects(data: UTDMHAD, split: str) -> set[int]:
    return {take.subject for take in data.splits[split].takes}


# Index and splits


def test_odd_subjects_train_even_ones_test(shared):
    data = ready(shared)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 12, "val": 4, "test": 16}
    assert [subjects(data, split) for split in ("train", "val", "test")] == [{1, 3}, {1, 3}, {2, 4}]
    assert {m: (x.kind, x.shape) for m, x in data.spec.modalities.items()} == {
        "depth": ("video", (1, 4, 16, 16)),
        "skeleton": ("sequence", (60, 10)),
        "inertial": ("sequence", (6, 12)),
    }
    assert len(CLASSES) == data.spec.num_classes == 27
    test = data.splits["test"]
    assert test.ids[0] == "a1_s2_t1"
    assert sorted(set(test.targets)) == [0, 26]
    assert list(ready(shared, validation=0).splits) == ["train", "test"]


def test_any_subjects(shared, tmp_path):
    data = ready(shared, train_subjects=[1, 2, 4], test_subjects=[3])
    assert subjects(data, "train") == {1, 2, 4}
    assert subjects(data, "test") == {3}
    make_utd_mhad(tmp_path, subjects=(5, 8))
    found = ready(tmp_path)
    assert subjects(found, "train") == {5}
    assert subjects(found, "test") == {8}


def test_validation_hangs_on_the_data_seed(shared):
    first, again, other = (ready(shared, seed=seed).splits["val"].ids for seed in (0, 0, 1))
    assert first == again != other
    assert first == ready(shared, run_seed=3).splits["val"].ids


def test_subjects_that_cannot_be(shared, tmp_path):
    told = problem(shared, train_subjects=[1, 7], test_subjects=[1])
    assert "data.train_subjects: not on disk: 1 (7); choose from [1, 2, 3, 4]" in told
    assert "subjects [1] are in train and test" in told
    make_utd_mhad(tmp_path, subjects=(1, 3))
    assert "no subject to test on: found [1, 3]; name some with data.test_subjects=[...]" in problem(tmp_path)


def test_keys(shared):
    told = problem(shared, frames=0, validation=1, jitter=0.5, incomplete="maybe", image_size=2)
    for part in (
        "data.frames=0",
        "data.validation=1",
        "data.jitter=0.5",
        "data.incomplete=maybe",
        "data.image_size=2",
    ):
        assert part in told
    assert "data.validation=0.01 of 16 recordings leaves 16 for training and 0" in problem(
        shared, validation=0.01
    )


# Content


def test_depth_is_cut_out_around_the_person():
    """At 10 m a square of 2 m has 57 pixels; the person's feet are at its lower edge."""
    small = cut_out(np.ascontiguousarray(video(5).transpose(2, 0, 1)), 57)
    assert small.shape == (5, 57, 57)
    assert small.dtype == np.uint16
    assert set(np.unique(small)) == {0, 9_500, 10_000}
    assert np.flatnonzero((small[0] > 0).any(1)).tolist() == list(range(17, 57))
    columns = np.flatnonzero((small[0] > 0).any(0))
    assert len(columns) == 12
    assert columns.mean() == pytest.approx(28, abs=1)
    half = cut_out(np.ascontiguousarray(video(5).transpose(2, 0, 1)), 28)
    assert (half[0] > 0).mean() == pytest.approx((small[0] > 0).mean(), rel=0.2)


def test_depth_of_a_person_at_the_edge_and_of_nobody():
    x = np.zeros((3, 48, 64), np.uint16)
    assert cut_out(x, 16).shape == (3, 16, 16)
    assert not normalised_depth(np.zeros((3, 16, 16), np.float32)).any()
    x[:, 20:40, :8] = 10_000
    assert (cut_out(x, 16) == 10_000).any()


def test_motion_is_the_change_between_frames(shared):
    """Four differences of five frames, of which nothing is left where nothing moves."""
    data = ready(shared, motion=True)
    assert data.spec.modalities["depth"].shape == (1, 4, 16, 16)
    test = data.splits["test"]
    assert test.read(Key(0, 0))["depth"].shape == (5, 16, 16)
    frames = ready(shared, frames=5).splits["test"][Key(0, 0)].inputs["depth"]
    torch.testing.assert_close(test[Key(0, 0)].inputs["depth"], frames.diff(dim=1))
    assert frames.diff(dim=1).any()


def test_a_person_further_away_is_as_large():
    near = np.zeros((1, 240, 320), np.uint16)
    far = near.copy()
    near[:, 40:200, 140:180] = 2000
    far[:, 60:140, 150:170] = 4000
    a, b = ((cut_out(x, 32) > 0) for x in (near, far))
    assert (a != b).mean() < 0.03


def test_skeleton_is_centred_on_the_hip_and_scaled():
    joints = skeleton(7).astype(np.float64)
    done = normalised_skeleton(joints)
    assert np.abs(done[HIP]).max() == 0
    assert np.linalg.norm(done[NECK], axis=0).mean() == pytest.approx(1)
    np.testing.assert_allclose(normalised_skeleton(2.5 * joints + 4), done)


def test_resampling_is_linear():
    x = np.arange(9.0)[None]
    assert resampled(x, 5, 0, 1).tolist() == [[0, 2, 4, 6, 8]]
    assert resampled(x, 3, 0.25, 0.5).tolist() == [[2, 3, 4]]
    assert resampled(x[:, :1], 4, 0, 1).tolist() == [[0] * 4]


def test_inertial_is_scaled_by_the_training_split_alone(shared):
    data = ready(shared, jitter=0.0)
    train = data.splits["train"]
    raw = np.concatenate([train.sequence(i, "inertial") for i in range(len(train))], 1)
    for split in data.splits.values():
        np.testing.assert_allclose(split.mean[:, 0], raw.mean(1))
        np.testing.assert_allclose(split.std[:, 0], raw.std(1))
    test = data.splits["test"]
    expected = (resampled(test.sequence(2, "inertial"), 12, 0, 1) - test.mean) / test.std
    np.testing.assert_allclose(test[Key(0, 2)].inputs["inertial"], expected, rtol=1e-4, atol=1e-5)


def test_jitter_in_training_alone(shared):
    one, other = (ready(shared, run_seed=seed).splits for seed in (0, 1))
    still = ready(shared, jitter=0.0).splits["train"]
    key = Key(2, 1)
    x = one["train"][key].inputs["skeleton"]
    assert torch.equal(one["train"][key].inputs["skeleton"], x)
    for different in (one["train"][Key(3, 1)], other["train"][key], still[key]):
        assert not torch.equal(different.inputs["skeleton"], x)
    assert torch.equal(still[key].inputs["skeleton"], still[Key(3, 1)].inputs["skeleton"])
    assert torch.equal(one["test"][key].inputs["skeleton"], other["test"][Key(0, 1)].inputs["skeleton"])


def test_noise_is_on_physical_values(shared):
    gaussian = Gaussian(5.0, 1.0, {"wrap_negative": False, "same_pattern": False})
    noisy = ready(shared, noise={"train": Clean(), "seed": 0, "test": gaussian}).splits["test"][Key(0, 0)]
    clean = ready(shared).splits["test"][Key(0, 0)]
    for m in MODALITIES:
        assert noisy.inputs[m].isfinite().all()
        assert not torch.equal(noisy.inputs[m], clean.inputs[m])


# The cache


def test_depth_is_decoded_once(tree, tmp_path, monkeypatch):
    first = ready(tree, cache=str(tmp_path / "cache")).splits["test"][Key(0, 0)].inputs["depth"]
    monkeypatch.setattr("mmrobust.data.families.depth_video.read_mat", None)  # would fail
    again = ready(tree, cache=str(tmp_path / "cache")).splits["test"]
    assert torch.equal(again[Key(0, 0)].inputs["depth"], first)
    with pytest.raises(TypeError):
        ready(tree, cache=str(tmp_path / "cache"), image_size=8).splits["test"][Key(0, 0)]


def test_cache_is_no_part_of_what_a_run_is():
    from mmrobust.config.compose import compose_config
    from mmrobust.config.identity import config_hash

    here, there = (config_hash(compose_config(["data=utd_mhad", f"data.cache={c}"])) for c in ("null", "/x"))
    assert here == there


# Bad input


def test_missing_files(tree):
    (tree / "Depth/a1_s1_t1_depth.mat").unlink()
    (tree / "Inertial/a1_s2_t1_inertial.mat").unlink()
    told = problem(tree)
    assert f"no depth file in {tree / 'Depth'}: 1 (a1_s1_t1)" in told
    assert f"no inertial file in {tree / 'Inertial'}: 1 (a1_s2_t1)" in told
    assert "data.incomplete=allow" in told
    data = ready(tree, incomplete="allow")
    test = data.splits["test"]
    row = test.ids.index("a1_s2_t1")
    assert test.present[row].tolist() == [True, True, False]
    assert test[Key(0, row)].inputs["inertial"] is None
    batch = next(iter(data.loader("test")))
    assert batch.available[batch.ids.index("a1_s2_t1")].tolist() == [True, True, False]


def test_a_whole_modality_may_be_absent(tree):
    shutil.rmtree(tree / "Inertial")
    assert "no inertial file in" in problem(tree)
    data = ready(tree, incomplete="allow")
    assert not data.splits["train"].present[:, 2].any()
    next(iter(data.loader("train", shuffle=True)))


def test_strange_names_and_nothing(tree, tmp_path):
    write(tree, "a28_s1_t1", "depth", video(3))
    write(tree, "action1", "skeleton", skeleton(3))
    told = problem(tree)
    assert "files not called aA_sS_tT_<modality>.mat with action A from 1 to 27" in told
    assert "2 (Depth/a28_s1_t1_depth.mat, Skeleton/action1_skeleton.mat)" in told
    (tmp_path / "empty").mkdir()
    assert "no files called aA_sS_tT_<modality>.mat" in problem(tmp_path / "empty")
    assert "does not exist; set it, or paths.data" in problem(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("modality", "array", "told"),
    [
        ("depth", np.zeros((48, 64), np.uint16), "shape (48, 64), not (height, width, frames)"),
        ("depth", np.full((4, 4, 2), -1.0), "no depth in mm"),
        ("skeleton", np.zeros((3, 20, 5)), "shape (3, 20, 5), not (20, 3, N)"),
        ("skeleton", np.full((20, 3, 5), np.nan), "not finite"),
        ("inertial", np.zeros((6, 30)), "shape (6, 30), not (N, 6)"),
        ("inertial", np.zeros((0, 6)), "shape (0, 6), not (N, 6)"),
    ],
)
def test_arrays_of_another_shape(tree, modality, array, told):
    path = write(tree, "a1_s2_t1", modality, array)
    with pytest.raises(UserError) as caught:
        next(iter(ready(tree).loader("test")))
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert "sample a1_s2_t1: " in str(caught.value)
    left = ready(tree, corrupt="skip")
    assert left.skipped == {"test": ["a1_s2_t1"]}


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
@pytest.mark.parametrize("modality", MODALITIES)
def test_files_cut_short(tree, modality, share):
    path = tree / modality.title() / f"a1_s2_t1_{modality}.mat"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"cannot be read as a MATLAB file: .*; get it again"):
        ready(tree).splits["test"][Key(0, 0)]


def test_other_files(tree, tmp_path):
    path = tree / "Depth/a1_s2_t1_depth.mat"
    path.write_text("<html>not found</html>" * 20)
    with pytest.raises(UserError, match="cannot be read as a MATLAB file"):
        cropped_video(path, "d_depth", 16, None)
    shutil.copy(tree / "Skeleton/a1_s2_t1_skeleton.mat", path)
    with pytest.raises(UserError, match="has no variable d_depth, only d_skel"):
        cropped_video(path, "d_depth", 16, None)


def test_damaged_training_sensor(tree):
    """Its statistics need all of them."""
    path = tree / "Inertial/a1_s1_t1_inertial.mat"
    path.write_bytes(b"")
    data = [ready(tree, corrupt="skip", validation=0)]
    assert data[0].skipped == {"train": ["a1_s1_t1"]}
    told = problem(tree, validation=0)
    assert f"{path} (0 bytes) cannot be read" in told
    assert "data.corrupt=skip" in told


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is absent; set MMROBUST_DATA")
def test_real_files():
    data = ready(REAL, validation=0, frames=16, image_size=32)
    found = {take.subject for split in data.splits.values() for take in split.takes}
    if found == {1, 2, 3, 4}:
        assert {name: len(split) for name, split in data.splits.items()} == {"train": 215, "test": 216}
    assert set(data.splits["test"].targets) == set(range(27))
    for split in data.splits.values():
        sample = split[Key(0, 0)]
        assert all(x.isfinite().all() for x in sample.inputs.values())
        raw = split.read(Key(0, 0))
        seen = raw["depth"][raw["depth"] > 0]
        assert 1.5 < np.median(seen) < 4
        assert 0.05 < (raw["depth"] > 0).mean() < 0.4
