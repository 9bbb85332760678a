"""What the RGB-D datasets have in common, on all of them."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmrobust.data.families import frame_augmentation
from mmrobust.data.split import Key
from mmrobust.errors import UserError
from mmrobust.evaluation.results import read_results
from mmrobust.prepare.synthetic import cityscapes, nyuv2, sunrgbd
from mmrobust.run import main
from mmrobust.testing import check_dataset
from tests.data.cityscapes_tree import prepare_cityscapes
from tests.data.nyuv2_tree import prepare_nyuv2
from tests.data.sunrgbd_tree import prepare_sunrgbd
from tests.data.trees import SMALL, problem, ready

NAMES = ["nyuv2", "sunrgbd", "cityscapes"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """Folders `official` and `prepared` with all datasets."""
    root = tmp_path_factory.mktemp("rgbd")
    official, prepared = root / "official", root / "prepared"
    nyuv2.make(official / "nyuv2")
    prepare_nyuv2(official / "nyuv2", prepared / "nyuv2")
    sunrgbd.make(official / "sunrgbd")
    sunrgbd.make(prepared / "sunrgbd")
    prepare_sunrgbd(prepared / "sunrgbd")
    cityscapes.make(official / "cityscapes")
    prepare_cityscapes(official / "cityscapes", prepared / "cityscapes")
    return root


@pytest.fixture
def trees(shared, tmp_path) -> Path:
    return shutil.copytree(shared, tmp_path / "trees")


FORMS = [
    ("nyuv2", []),
    ("nyuv2", ["data.classes=13", "data.depth=raw"]),
    ("sunrgbd", []),
    ("sunrgbd", ["data.depth=raw"]),
    ("sunrgbd", ["data.task=scene", "data.validation=0.25"]),
    ("cityscapes", []),
    ("cityscapes", ["data.depth=disparity", "data.class_weights=median_frequency"]),
]


@pytest.mark.parametrize(("name", "keys"), FORMS, ids=lambda x: x if isinstance(x, str) else "+".join(x))
def test_both_forms_give_the_same(name, keys, shared):
    one, other = (ready(name, shared / form, *keys) for form in ("official", "prepared"))
    assert one.fingerprint == other.fingerprint
    assert one.spec == other.spec
    for split, data in one.splits.items():
        assert data.ids == other.splits[split].ids
        for key in (Key(0, 0), Key(2, len(data) - 1)):
            first, second = data[key], other.splits[split][key]
            assert torch.equal(torch.as_tensor(first.target), torch.as_tensor(second.target))
            for m in ("rgb", "depth"):
                assert torch.equal(first.inputs[m], second.inputs[m])


def test_fingerprints_tell_tasks_and_classes_apart(shared):
    keys = [[], ["data.classes=13"], ["data.task=scene", "data.validation=0"], ["data.validation=0"]]
    assert len({ready("nyuv2", shared / "official", *k).fingerprint for k in keys}) == len(keys)


@pytest.mark.parametrize("name", NAMES)
def test_workers_read_the_same(name, shared):
    """The official forms keep files open."""
    alone, two = (ready(name, shared / "official", f"data.workers={n}") for n in (0, 2))
    for one, other in zip(alone.loader("test"), two.loader("test"), strict=True):
        assert torch.equal(one.target, other.target)
        assert torch.equal(one.inputs["depth"], other.inputs["depth"])


@pytest.mark.parametrize("name", NAMES)
def test_splits(name, shared):
    data = ready(name, shared / "official")
    assert {split: len(x) for split, x in data.splits.items()} == {"train": 14, "val": 2, "test": 8}
    train, val = set(data.splits["train"].ids), set(data.splits["val"].ids)
    whole = ready(name, shared / "official", "data.validation=0")
    assert "val" not in whole.splits
    assert train | val == set(whole.splits["train"].ids)
    other = ready(name, shared / "official", "data.seed=1")
    assert set(other.splits["val"].ids) != val
    assert train != set(other.splits["train"].ids)
    assert set(ready(name, shared / "official", "seed=5").splits["val"].ids) == val
    check_dataset(data)


def test_labels_have_the_inputs_size_in_training_and_their_own_in_testing(shared):
    data = ready("sunrgbd", shared / "official")
    assert {tuple(data.splits["train"][Key(e, e)].target.shape) for e in range(14)} == {(32, 48)}
    assert {tuple(data.splits["test"][Key(0, i)].target.shape) for i in range(8)} == {(24, 32)}
    assert data.spec.ignore_index == 255
    data = ready("sunrgbd", shared / "official", "data.validation=0.5", "data.batch_size=8")
    assert len({tuple(data.splits["val"][Key(0, i)].target.shape) for i in range(8)}) == 2
    batch = next(iter(data.loader("val")))
    assert batch.label_size is not None
    assert batch.inputs["rgb"].shape[1:] == (3, 32, 48)


@pytest.mark.parametrize(
    ("name", "form", "pictures"),
    [
        ("nyuv2", "prepared", "*/rgb/*.png"),
        ("cityscapes", "official", "leftImg8bit/*/*/*.png"),
        ("cityscapes", "prepared", "*/rgb/*/*.png"),
        ("sunrgbd", "official", "SUNRGBD/**/image/*.jpg"),
    ],
)
def test_colour_may_be_png_or_jpeg(name, form, pictures, trees):
    before = ready(name, trees / form)
    colour = before.splits["test"][Key(0, 0)].inputs["rgb"]
    found = list((trees / form / name).glob(pictures))
    assert found
    for path in found:
        other = ".JPG" if path.suffix == ".png" else ".png"
        cv2.imwrite(str(path.with_suffix(other)), cv2.imread(str(path)))
        path.unlink()
    after = ready(name, trees / form)
    assert after.fingerprint == before.fingerprint
    assert (after.splits["test"][Key(0, 0)].inputs["rgb"] - colour).abs().mean() < 0.5


@pytest.mark.parametrize("name", ["nyuv2", "sunrgbd", "cityscapes"])
def test_training_sees_the_whole_frame_unless_the_size_is_the_published_one(name, shared, monkeypatch):
    keys = ["data.image_size=[8,16]", "data.scale=[1.0,1.0]"]
    data = ready(name, shared / "official", *keys)
    split = data.splits["train"]
    raw = split.read(Key(0, 0))
    tested = frame_augmentation.moved(frame_augmentation.resized((8, 16)), 0, raw)["depth"]
    seen = [split.augment(raw, Key(epoch, 0))["depth"] for epoch in range(4)]
    assert all(np.array_equal(x, tested) or np.array_equal(x[:, ::-1], tested) for x in seen)
    monkeypatch.setattr(type(data), "published", (8, 16))
    window = ready(name, shared / "official", *keys).splits["train"].augment(raw, Key(0, 0))["depth"]
    height, width = raw["depth"].shape
    windows = [raw["depth"][i : i + 8, j : j + 16] for i in range(height - 7) for j in range(width - 15)]
    assert any(np.array_equal(window, x) or np.array_equal(window[:, ::-1], x) for x in windows)


def test_augmentation_is_a_function_of_run_seed_and_key(shared):
    one, other = (ready("nyuv2", shared / "official", f"data.run_seed={s}").splits for s in (0, 1))
    first = one["train"][Key(2, 3)]
    one["train"][Key(1, 1)]
    for again, same in ((one["train"][Key(2, 3)], True), (other["train"][Key(2, 3)], False)):
        assert torch.equal(first.target, again.target) == same
        assert torch.equal(first.inputs["rgb"], again.inputs["rgb"]) == same
    assert torch.equal(one["test"][Key(0, 1)].inputs["rgb"], other["test"][Key(7, 1)].inputs["rgb"])


def test_class_weights_follow_the_training_labels(shared):
    data = ready("nyuv2", shared / "official")
    labels = [data.splits["train"].read(Key(0, i))["label"] for i in range(14)]
    pixels = np.array([sum((x == c).sum() for x in labels) for c in range(40)])
    images = np.array([sum(x.size for x in labels if (x == c).any()) for c in range(40)])
    frequency = pixels / images
    assert data.spec.class_weights == pytest.approx(np.median(frequency) / frequency)
    assert ready("nyuv2", shared / "official", "data.class_weights=none").spec.class_weights == ()
    assert ready("nyuv2", shared / "official", "data.task=scene").spec.class_weights == ()
    other = ready("nyuv2", shared / "official", "data.validation=0").spec.class_weights
    assert other != data.spec.class_weights


def test_class_weights_are_counted_once(shared, monkeypatch):
    first = ready("nyuv2", shared / "prepared").spec.class_weights
    monkeypatch.setattr("mmrobust.data.families.rgbd.median_frequency", None)
    assert ready("nyuv2", shared / "prepared").spec.class_weights == first


def test_noise_gives_no_depth_where_there_is_none(shared):
    keys = [
        "data.depth=raw",
        "noise/pattern@noise.test=gaussian",
        "noise.test.level=5",
        "noise.test.probability=1",
    ]
    clean, noisy = (
        ready("nyuv2", shared / "official", *k).splits["test"][Key(0, 1)].inputs["depth"]
        for k in (keys[:1], keys)
    )
    assert torch.equal(clean == 0, noisy == 0) or (noisy[clean == 0] == 0).all()
    assert (noisy[clean != 0] != clean[clean != 0]).float().mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_wrong_values_are_told_at_once(name, shared):
    told = problem(
        name, shared / "official", "data.depth=foo", "data.incomplete=no", "data.class_weights=x",
        "data.image_size=[4]", "data.scale=[2.0,1.0]", "data.validation=1.5",
    )  # fmt: skip
    for text in (
        "data.depth=foo is not known; use ",
        "data.incomplete=no is not known; use error or allow",
        "data.class_weights=x is not known; use median_frequency or none",
        "data.image_size=[4] is no [height, width]",
        "data.scale=[2.0, 1.0] is no range",
        "data.validation=1.5 is not a share of train",
    ):
        assert text in told
    assert "does not exist; set it, or paths.data, to where there is" in problem(name, shared / "nowhere")
    (shared / f"empty/{name}").mkdir(parents=True, exist_ok=True)
    assert f"data.root={shared / 'empty' / name} cannot be used" in problem(name, shared / "empty")


def depth_file(root: Path, name: str) -> tuple[Path, str]:
    """The file of depth of a frame for testing, and the frame's name."""
    where = {
        "nyuv2": ("prepared/nyuv2/test/depth/0003.png", "0003"),
        "sunrgbd": ("official/sunrgbd/SUNRGBD/kv2/kinect2data/000003_resize/depth_bfx/0000003_abs.png",
                    "kv2/kinect2data/000003_resize"),
        "cityscapes": ("official/cityscapes/disparity/val/lindau/lindau_000001_000019_disparity.png",
                       "lindau_000001_000019"),
    }  # fmt: skip
    return root / where[name][0], where[name][1]


@pytest.mark.parametrize("name", NAMES)
def test_missing_depth(name, trees):
    path, sample = depth_file(trees, name)
    folder = trees / path.relative_to(trees).parts[0]
    path.unlink()
    told = problem(name, folder)
    assert f"no depth of: 1 ({sample}: {path.parent}" in told
    assert "data.incomplete=allow" in told
    assert "data.corrupt=skip" in told
    left = ready(name, folder, "data.corrupt=skip")
    assert left.skipped == {"test": [sample]}
    kept = ready(name, folder, "data.incomplete=allow")
    row = kept.splits["test"].ids.index(sample)
    assert kept.splits["test"].present[row].tolist() == [True, False]
    found = kept.splits["test"][Key(0, row)]
    assert found.inputs["depth"] is None
    assert found.inputs["rgb"] is not None
    batches = torch.cat([b.available for b in kept.loader("test")])
    assert batches.sum(0).tolist() == [8, 7]


def test_missing_depth_in_training(trees):
    folder = trees / "prepared"
    (folder / "nyuv2/train/depth/0001.png").unlink()
    data = ready("nyuv2", folder, "data.incomplete=allow", "data.validation=0")
    found = data.splits["train"][Key(0, 0)]
    assert found.inputs["depth"] is None
    assert found.inputs["rgb"].shape == (3, 32, 48)
    assert found.target.shape == (32, 48)
    whole = ready("nyuv2", trees.parent / "trees/official", "data.validation=0").splits["train"][Key(0, 0)]
    assert torch.equal(found.inputs["rgb"], whole.inputs["rgb"])


@pytest.mark.parametrize("name", NAMES)
def test_different_sizes(name, trees):
    path, sample = depth_file(trees, name)
    folder = trees / path.relative_to(trees).parts[0]
    image = cv2.imread(str(path), -1)
    cv2.imwrite(str(path), image[:-1])
    data = ready(name, folder)
    row, (height, width) = data.splits["test"].ids.index(sample), image.shape
    with pytest.raises(
        UserError, match=f"its parts differ in size.*rgb {height} × {width} .*depth {height - 1} ×"
    ):
        data.splits["test"][Key(0, row)]
    with pytest.raises(UserError, match=f"sample {sample}: its parts differ.*data.corrupt=skip"):
        list(data.loader("test"))
    assert ready(name, folder, "data.corrupt=skip").skipped == {"test": [sample]}


def test_damaged_labels_are_named_where_classes_are_counted(trees):
    path = trees / "prepared/nyuv2/train/labels_40/0001.png"
    cv2.imwrite(str(path), np.full((24, 32), 41, np.uint8))
    keys = ["data.validation=0"]
    told = problem("nyuv2", trees / "prepared", *keys)
    assert told.startswith(f"sample 0001: {path} has labels outside of 0 to 40: 41")
    data = ready("nyuv2", trees / "prepared", *keys, "data.corrupt=skip")
    assert data.skipped == {"train": ["0001"]}
    assert len(data.spec.class_weights) == 40
    cv2.imwrite(str(path), np.zeros((24, 32), np.uint8))
    data = ready("nyuv2", trees / "prepared", *keys)
    with pytest.raises(UserError, match=r"no pixel of its label \(.*0001\.png\) has a class, all are void"):
        data.splits["train"][Key(0, 0)]
    path.write_bytes(path.read_bytes()[:40])
    assert "sample 0001: image" in problem("nyuv2", trees / "prepared", *keys)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs_on_both_forms_give_the_same_numbers(name, shared, tmp_path):
    results = []
    for form in ("official", "prepared"):
        given = ["method=dmrnet", f"data={name}", "encoder=tiny", "encoder.width=16", *SMALL[name]]
        given += ["trainer=cpu", "trainer.max_epochs=1", "data.batch_size=4", "data.workers=0", "logger=none"]
        assert main([*given, f"paths.data={shared / form}", f"paths.run={tmp_path / form}"]) == 0
        results.append(read_results(tmp_path / form))
    one, other = results
    assert one["status"] == "complete"
    assert list(one["combinations"]) == ["rgb", "depth", "rgb+depth"]
    assert one["combinations"] == other["combinations"]
    assert one["protocol"]["data_fingerprint"] == other["protocol"]["data_fingerprint"]
