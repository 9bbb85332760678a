"""Data of a user's own: a CSV beside a folder of files of every kind."""

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.config.identity import config_hash, load_run_config
from mmrobust.data import listing
from mmrobust.data.manifest import Manifest
from mmrobust.data.split import Key
from mmrobust.data.table import inference
from mmrobust.errors import UserError
from mmrobust.evaluate import main as evaluate
from mmrobust.evaluation.results import read_results
from mmrobust.run import main
from mmrobust.testing import check_dataset
from tests.data.manifest_tree import COLUMNS, make_manifest, make_masks, read_rows, write_table


@cache
def defaults() -> DictConfig:
    config = compose_config(["data=manifest", "data.batch_size=4", "data.workers=0"])
    OmegaConf.set_struct(config, False)
    return config


def built(table: Path, *overrides: str) -> Manifest:
    config = defaults().copy()
    config.merge_with_dotlist([f"data.manifest={table}", *overrides])
    data: Manifest = construct(config.data)
    return data


def ready(table: Path, *overrides: str) -> Manifest:
    data = built(table, *overrides)
    data.setup()
    return data


def problem(table: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        ready(table, *overrides)
    return str(caught.value)


def changed(table: Path, change: Callable[[list[dict[str, str]]], object]) -> Path:
    """The table rewritten with other rows."""
    rows = read_rows(table)
    change(rows)
    return write_table(table, rows)


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def masks(tmp_path_factory) -> Path:
    return make_masks(tmp_path_factory.mktemp("masks"))


@pytest.fixture
def table(classes, tmp_path) -> Path:
    return shutil.copytree(classes.parent, tmp_path / "own") / "my.csv"


@pytest.fixture
def masked(masks, tmp_path) -> Path:
    return shutil.copytree(masks.parent, tmp_path / "own") / "my.csv"


# What is inferred


def test_files_that_changed_are_told_when_a_run_is_met_again(table, tmp_path, capfd):
    small = [
        "encoder.width=8",
        "trainer.max_epochs=1",
        "trainer=cpu",
        "data.workers=0",
        "method=fusion",
        "keep=all",
    ]
    given = [
        "-m",
        *small,
        "data=manifest",
        f"data.manifest={table}",
        "data.columns=[vector]",
        f"paths.outputs={tmp_path}/out",
    ]
    assert main(given) == 0
    assert main(given) == 0
    assert "warning" not in capfd.readouterr().err
    os.utime(table.parent / "vector/3.npy", (1, 1))
    listing._stamp_of.cache_clear()
    assert main(given) == 0
    told = capfd.readouterr().err
    (folder,) = tmp_path.glob("out/fusion_manifest/*/")
    assert f"warning: {table} now names files that are newer or older than {folder} was made with" in told
    for path in table.parent.glob("vector/*.npy"):
        np.save(path, np.arange(7, dtype=np.float32))
    listing._stamp_of.cache_clear()
    assert main(given) == 0
    assert "now names files of other sizes than" in capfd.readouterr().err
    assert evaluate([f"run={folder}"]) == 0
    assert f"warning: {table} names files of other sizes than the run was made with" in capfd.readouterr().err
    (folder / "results.json").unlink()
    listing._stamp_of.cache_clear()
    assert main([f"resume={folder}"]) == 2
    assert (
        f"than the interrupted run in {folder} was begun with; bring the old ones back"
        in capfd.readouterr().err
    )


def test_every_kind_of_file(classes):
    data = ready(classes)
    check_dataset(data)
    assert {m: (x.kind, x.shape) for m, x in data.spec.modalities.items()} == {
        "rgb": ("image", (3, 32, 32)),
        "depth": ("depth", (1, 32, 32)),
        "audio": ("spectrogram", (1, 257, 15)),
        "vector": ("vector", (7,)),
        "sequence": ("sequence", (4, 20)),
        "video": ("video", (3, 3, 16, 16)),
    }
    assert data.spec.classes == ("cat", "dog")
    for modality in COLUMNS:  # train has mean 0 and standard deviation 1
        split = data.splits["train"]
        rows = [split[Key(0, i)].inputs[modality] for i in range(len(split))]
        values = torch.stack([x for x in rows if x is not None])
        values = values[values != 0] if modality == "depth" else values
        assert abs(values.mean()) < 0.02
        assert abs(values.std() - 1) < 0.1


def test_an_empty_cell_is_not_available(classes):
    data = ready(classes)
    where = {name: (split, i) for split, s in data.splits.items() for i, name in enumerate(s.ids)}
    split, i = where["s0"]
    assert data.splits[split].present[i].tolist() == [True, True, False, True, True, True]
    assert data.splits[split][Key(0, i)].inputs["audio"] is None
    assert sum((~s.present).sum() for s in data.splits.values()) == 1


def test_what_was_inferred_is_told_with_how_to_change_it(classes):
    data = built(classes, "data.batch_size=64")
    text = data.told(data.infer())
    for part in (
        "my.csv: 10 rows, classification",
        "train 6, val 2, test 2 (test held out of train, data.test=0.15; val held out of train, data.validation=0.15",
        "batch      6, fewer than data.batch_size=64",
        "classes    2: cat, dog",
        "×30, stretched: width / height 0.6",
        "8000 Hz, 0.47 s; missing in 1 row",
        "unit 0.001 m",
        "data.modalities.rgb.size=112",
    ):
        assert part in text
    assert len(text.splitlines()) < 12


def test_a_batch_larger_than_train_is_made_smaller(classes):
    data = ready(classes, "data.batch_size=64")
    assert data.batch_size == 6
    assert len(next(iter(data.loader("train", shuffle=True)))) == 6


def test_what_was_inferred_can_be_set(classes):
    keys = ["rgb.size=[24,48]", "rgb.mean=0.5", "rgb.std=[0.5,0.25,0.125]", "depth.unit=1", "audio.size=0.2"]
    keys += ["audio.sample_rate=4000", "vector.kind=vector", "sequence.kind=image", "rgb.kind=image"]
    overrides = [f"data.modalities.{key}" for key in keys]
    data = ready(classes, *overrides, "data.classes=[dog,cat,bird]", "data.n_fft=64", "data.hop=32")
    assert data.spec.modalities["rgb"].shape == (3, 24, 48)
    assert data.spec.modalities["audio"].shape == (1, 33, 26)
    assert data.spec.modalities["sequence"].kind == "image"
    assert data.spec.classes == ("dog", "cat", "bird")
    inferred = data.infer()["modalities"]
    assert inferred["rgb"]["mean"] == [0.5]
    assert inferred["rgb"]["std"] == [0.5, 0.25, 0.125]
    assert inferred["depth"]["mean"][0] > 1000
    assert list(ready(classes, "data.columns=[audio,rgb]").spec.modalities) == ["audio", "rgb"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rgb.kind=vector", "data.modalities.rgb.kind=vector, but"),
        ("rgb.size=[1,2,3]", "data.modalities.rgb.size=[1, 2, 3] is no size; write 112, or [height, width]"),
        ("rgb.mean=[1,2]", "data.modalities.rgb.mean has 2 numbers; give 1 or 3"),
        ("rgb.std=0", "data.modalities.rgb.std=[0.0] must be above 0"),
        (
            "vector.size=3",
            "vector.size=3 has no effect: it is for image and depth and spectrogram, and this is vector",
        ),
        ("vector.unit=3", "vector.unit=3 has no effect: it is for depth, and this is vector; leave it out"),
        ("rgb.unit=3", "rgb.unit=3 has no effect: it is for depth, and this is image; leave it out"),
        ("rgb.sample_rate=3", "rgb.sample_rate=3 has no effect: it is for spectrogram, and this is image"),
        ("audio.unit=3", "audio.unit=3 has no effect: it is for depth, and this is spectrogram"),
        ("rgbb.size=64", "data.modalities.rgbb has no effect; did you mean rgb?"),
        ("rgb.sise=64", "data.modalities.rgb.sise has no effect; did you mean size?"),
        ("audio.size=[1,2]", "data.modalities.audio.size=[1, 2]: of sounds it is a number of seconds"),
    ],
)
def test_what_cannot_be_set(classes, override, message):
    assert message in problem(classes, f"data.modalities.{override}")


@pytest.mark.parametrize(
    "override",
    ["class_weights=[1,50]", "class_weights=foo", "label_offset=-1", "ignore_index=0", "ignore_index=null"],
)
def test_keys_of_masks_are_not_for_labels(classes, override):
    text = problem(classes, f"data.{override}")
    assert f"data.{override.partition('=')[0]}=" in text
    assert " has no effect: it is for masks, and the target is a label; leave it out" in text


def test_augmentation_is_for_maps(classes):
    with pytest.raises(UserError, match=r"data\.augment=flip has no effect: no column holds images or depth"):
        built(classes, "data.columns=[audio,vector]", "data.augment=flip").infer()


@pytest.mark.parametrize(
    ("labels", "found"),
    [(["10", "9", "2", "9"], ("2", "9", "10")), (["b", "a", "10", "b"], ("10", "a", "b")), (["1.5", "x", "x"], ("1.5", "x"))],
)  # fmt: skip
def test_classes_are_in_order(table, labels, found):
    def label(rows):
        for i, row in enumerate(rows):
            row["label"], row["split"] = labels[i % len(labels)], "test" if i > 7 else "train"

    assert ready(changed(table, label)).spec.classes == found


# Splits


def test_named_splits_are_kept_and_the_others_held_out(table):
    def name(rows):
        for i, row in enumerate(rows):
            row["split"] = "test" if i in (2, 3, 4) else ""

    data = ready(changed(table, name))
    assert data.splits["test"].ids == ["s2", "s3", "s4"]
    assert {n: len(s) for n, s in data.splits.items()} == {"train": 6, "val": 1, "test": 3}
    assert ready(table).splits["val"].ids == data.splits["val"].ids
    assert any(
        ready(table, f"data.seed={s}").splits["val"].ids != data.splits["val"].ids for s in (1, 2, 3, 4)
    )
    assert list(ready(table, "data.validation=0").splits) == ["train", "test"]


def test_splits_that_cannot_be(table):
    assert "no row is left for the split 'test'" in problem(table, "data.test=0")
    assert "data.validation=1.5 is not a share" in problem(table, "data.validation=1.5")
    changed(table, lambda rows: [row.update(split="test") for row in rows])
    assert "no row is left for the split 'train'" in problem(table)


@pytest.mark.parametrize("rows", [3, 4, 5])
def test_a_handful_of_rows(tmp_path, rows):
    data = ready(make_manifest(tmp_path, rows=rows), "data.columns=[rgb,vector]", "data.batch_size=64")
    assert len(data.splits["train"]) >= 2
    assert len(data.splits["test"]) >= 1


# Bad input


def test_all_that_is_wrong_with_rows_is_told_at_once_with_lines(table):
    def spoil(rows):
        rows[1]["id"] = "s0"
        rows[2]["label"] = ""
        rows[3].update(dict.fromkeys(COLUMNS, ""))
        rows[4]["rgb"] = "no.jpg"
        rows[5]["audio"] = "rgb/5.jpg"
        rows[6]["vector"] = "notes.txt"
        for i, row in enumerate(rows):
            row["split"] = "valid" if i == 7 else "train"

    text = problem(changed(table, spoil))
    for part in (
        "ids that occur before: 1 (line 3: s0, first in line 2)",
        "unknown splits (known are train, val, test): 1 (line 9: valid)",
        "rows without a label: 1 (line 4: s2)",
        "rows without a file of any modality: 1 (line 5: s3)",
        "column audio mixes sounds 7 (line 3: 1.wav",
        "images 1 (line 7: 5.jpg)",
        "column vector: not one of .png",
        "1 (line 8: notes.txt)",
        f"no such files below {table.parent}: 2 (line 6: {table.parent}/no.jpg",
    ):
        assert part in text
    changed(table, lambda rows: [row.update(label="x") for row in rows])
    assert "the column label holds 1 classes (x); expected two or more" in problem(table)


def test_a_label_that_train_lacks(table):
    def spoil(rows):
        for i, row in enumerate(rows):
            row["split"] = "test" if i > 7 else "train"
        rows[9]["label"] = "bird"

    assert "labels that no row of train has: 1 (bird (test, line 11))" in problem(changed(table, spoil))
    assert "labels that data.classes has not: 1 (line 11: bird)" in problem(table, "data.classes=[cat,dog]")


def test_names_torch_keeps_for_itself(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    path = write_table(tmp_path / "my.csv", [{"id": "a", "label": "x", "type": "x.npy"}])
    assert "names that torch keeps for itself: 1 (type)" in problem(path)


def test_other_folders(table, tmp_path):
    moved = tmp_path / "elsewhere" / "my.csv"
    moved.parent.mkdir()
    shutil.move(table, moved)
    assert "no such files below" in problem(moved)
    assert len(ready(moved, f"data.root={table.parent}").splits["train"]) == 6
    assert "is no folder" in problem(moved, "data.root=/nowhere")


def test_arrays_must_agree(table):
    np.save(table.parent / "vector/8.npy", np.zeros(6))
    text = problem(table)
    assert "line 10: " in text
    assert "vector/8.npy has shape [6]," in text
    assert "has [7]; all arrays of a column must agree" in text
    left = ready(table, "data.corrupt=skip")
    assert [name for names in left.skipped.values() for name in names] == ["s8"]


def test_each_file_is_looked_at_once_however_many_rows_name_it(table, monkeypatch):
    rows = read_rows(table)
    write_table(table, [row | {"id": f"{row['id']} {i}"} for i in range(50) for row in rows])
    looked: list[Path] = []
    header, look = inference.header, listing._look
    monkeypatch.setattr(inference, "header", lambda path: looked.append(path) or header(path))
    monkeypatch.setattr(listing, "_look", lambda path: looked.append(path) or look(path))
    built(table, "data.columns=[vector,sequence]").infer()
    once = 20 * 2  # whether a file is there, and its shape
    assert len(looked) <= once + 2 * inference.LOOKED_AT


def test_unreadable_files(table):
    cut = table.parent / "rgb/4.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    (table.parent / "video/7.npy").write_bytes(b"no array")
    (table.parent / "vector/3.npy").unlink()
    assert "no such files below" in problem(table)
    left = ready(table, "data.corrupt=skip", "data.batch_size=64")
    assert sorted(name for names in left.skipped.values() for name in names) == ["s3", "s4", "s7"]
    assert left.batch_size == len(left.splits["train"])
    changed(table, lambda rows: rows.pop(3))
    assert "or leave out such samples with data.corrupt=skip" in problem(table)


def test_numbers_that_are_none(table):
    x = np.zeros(7)
    x[2] = np.nan
    for i in range(10):
        np.save(table.parent / f"vector/{i}.npy", x)
    assert "holds NaN or infinity" in problem(table)


def test_kinds_that_differ_within_a_column(table):
    Image.fromarray(np.full((40, 30), 5000, np.uint16)).save(table.parent / "rgb/5.png")
    changed(table, lambda rows: rows[5].update(rgb="rgb/5.png"))
    assert "if they are alike, say so: data.modalities.rgb.kind=image" in problem(table, "data.test=0.1")


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "expected"),
    [
        ((12, 10, 3), np.uint8, "image", (3, 12, 10)),
        ((3, 12, 10), np.float32, "image", (3, 12, 10)),
        ((8, 12, 10), np.float32, "image", (8, 12, 10)),
        ((12, 10, 1), np.float64, "image", (1, 12, 10)),
        ((3, 2, 12, 10), np.float32, "video", (3, 2, 12, 10)),
        ((5, 12, 10, 3), np.uint8, "video", (3, 5, 12, 10)),
        ((5, 9), np.int64, "sequence", (5, 9)),
    ],
)
def test_axes_of_arrays(tmp_path, shape, dtype, kind, expected):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(6):
        np.save(tmp_path / f"{i}.npy", rng.uniform(0, 200, shape).astype(dtype))
        rows.append({"id": str(i), "label": str(i % 2), "x": f"{i}.npy"})
    data = ready(write_table(tmp_path / "my.csv", rows))
    assert (data.spec.modalities["x"].kind, data.spec.modalities["x"].shape) == (kind, expected)
    check_dataset(data)


def test_grey_pixels_and_depth_of_floats(tmp_path):
    rows = []
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((40, 40), 30 * i, np.uint8))
        depth = np.full((40, 40), 1.5 + i, np.float32)
        depth[0], depth[1] = 0, np.nan
        cv2.imwrite(str(tmp_path / f"{i}.tiff"), depth)
        rows.append(
            {"split": "test" if i > 3 else "", "label": str(i % 2), "ir": f"{i}.png", "depth": f"{i}.tiff"}
        )
    data = ready(write_table(tmp_path / "my.csv", rows), "data.validation=0")
    assert data.spec.modalities["ir"].shape == (3, 32, 32)
    assert data.spec.modalities["depth"].kind == "depth"
    assert data.infer()["modalities"]["depth"]["unit"] == 1
    assert data.splits["train"].ids[0] == "line 2"  # no column id
    assert not data.splits["train"][Key(0, 0)].inputs["depth"][0, 0].any()


def test_sounds_of_several_rates_and_channels(tmp_path):
    rows = []
    for i, (rate, channels) in enumerate(
        [(16000, 1), (44100, 2), (16000, 1), (8000, 1), (16000, 2), (16000, 1)]
    ):
        soundfile.write(
            tmp_path / f"{i}.flac", np.random.default_rng(i).normal(0, 0.1, (rate, channels)), rate
        )
        rows.append({"id": str(i), "label": str(i % 2), "sound": f"{i}.flac"})
    data = ready(write_table(tmp_path / "my.csv", rows))
    assert data.spec.modalities["sound"].shape == (1, 257, 16000 // 256 + 1)


# Segmentation


def test_masks(masks):
    data = ready(masks)
    check_dataset(data)
    spec = data.spec
    assert (spec.task, spec.num_classes, spec.ignore_index, spec.classes) == (
        "segmentation",
        3,
        255,
        ("0", "1", "2"),
    )
    assert {m: x.shape for m, x in spec.modalities.items()} == {"rgb": (3, 32, 32), "depth": (1, 32, 32)}
    train, test = data.splits["train"][Key(0, 0)], data.splits["test"][Key(0, 1)]
    assert train.target.shape == (32, 32)
    assert test.target.shape == (48, 64)
    assert test.target.unique().tolist() == [0, 1, 2, 255]
    assert (test.target[0] == 255).all()
    batch = next(iter(data.loader("test")))
    assert batch.label_size.tolist() == [[52, 64], [48, 64]]


def test_class_weights(masked):
    """Two thirds of every mask become class 0 in train, so of 48 x 64 pixels with a void line."""
    for i in range(7):
        path = masked.parent / f"{i}_mask.png"
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        mask[mask == 1] = 0
        cv2.imwrite(str(path), mask)
    assert ready(masked).spec.class_weights == ()
    data = ready(masked, "data.class_weights=median_frequency")
    counts = np.zeros((7, 256))
    for i in range(7):
        counts[i] = np.bincount(
            cv2.imread(str(masked.parent / f"{i}_mask.png"), cv2.IMREAD_UNCHANGED).ravel(), minlength=256
        )
    frequency = counts[:, [0, 2]].sum(0) / counts.sum()
    weights = data.spec.class_weights
    assert weights[1] == 1  # which train does not have
    assert weights[0] == pytest.approx(frequency.mean() / frequency[0])
    assert weights[2] == pytest.approx(frequency.mean() / frequency[1])
    assert "weights" in data.told(data.infer())
    assert ready(masked, "data.class_weights=[1,2,0.5]").spec.class_weights == (1.0, 2.0, 0.5)
    for wrong in ("[1,2]", "[1,0,2]", "median"):
        assert "or 3 numbers above 0" in problem(masked, f"data.class_weights={wrong}")


@pytest.mark.parametrize("augment", ["none", "flip", "crop_flip"])
def test_geometry_is_shared(masks, augment):
    """The colour of every pixel tells its class: after any crop and flip it still does."""
    data = ready(masks, f"data.augment={augment}", "data.modalities.rgb.mean=0", "data.modalities.rgb.std=1")
    seen = []
    for epoch in range(8):
        sample = data.splits["train"][Key(epoch, 1)]
        image, depth, mask = sample.inputs["rgb"][0], sample.inputs["depth"][0], sample.target
        told = (image * 255 / 80).floor().clamp(max=2)  # 80 a class, and noise below 20
        valid = mask != 255
        assert (told == mask)[valid].float().mean() > 0.93  # but where classes meet
        levels = [depth[(mask == c) & (depth != 0)].median() for c in range(3) if (mask == c).any()]
        assert levels == sorted(levels)
        seen.append(mask)
    assert all(torch.equal(seen[0], mask) for mask in seen) == (augment == "none")


def test_labels_otherwise(masked):
    for i in range(10):
        path = masked.parent / f"{i}_mask.png"
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        void = mask == 255
        if i % 3 == 0:  # a palette
            image = Image.fromarray(np.where(void, 0, mask + 1).astype(np.uint8), mode="P")
            image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200, 9, 9, 9])
            image.save(path)
        elif i % 3 == 1:  # grey as colour
            cv2.imwrite(str(path), np.where(void, 0, mask + 1)[..., None].repeat(3, 2).astype(np.uint8))
        else:
            path.unlink()
            np.save(masked.parent / f"{i}_mask.npy", np.where(void, 0, mask + 1))
    changed(masked, lambda rows: [r.update(mask=f"{i}_mask.npy") for i, r in enumerate(rows) if i % 3 == 2])
    data = ready(masked, "data.label_offset=-1", "data.classes=[sky,tree,road]")
    assert data.spec.classes == ("sky", "tree", "road")
    for i in range(2):
        assert data.splits["test"][Key(0, i)].target.unique().tolist() == [0, 1, 2, 255]
    every = ready(masked, "data.ignore_index=null")
    assert every.spec.classes == ("0", "1", "2", "3")


def test_two_values(masked):
    for i in range(10):
        path = str(masked.parent / f"{i}_mask.png")
        cv2.imwrite(path, 255 * (cv2.imread(path, cv2.IMREAD_UNCHANGED) == 1).astype(np.uint8))
    assert (
        "the masks hold the values 0, 255, which leaves 1 class; if 255 is one too: data.ignore_index=null"
        in problem(masked)
    )
    data = ready(masked, "data.ignore_index=null")
    assert data.spec.classes == ("0", "255")
    assert data.splits["test"][Key(0, 0)].target.unique().tolist() == [0, 1]


def test_masks_that_cannot_be_used(masked):
    root = masked.parent
    cv2.imwrite(str(root / "1_mask.png"), np.zeros((10, 10), np.uint8))
    cv2.imwrite(str(root / "2_mask.png"), np.full((52, 64), 255, np.uint8))
    cv2.imwrite(str(root / "3_mask.png"), np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3))
    cv2.imwrite(str(root / "4_mask.jpg"), np.zeros((50, 64), np.uint8))
    cv2.imwrite(str(root / "5_depth.png"), np.ones((10, 10), np.uint16))
    changed(masked, lambda rows: rows[4].update(mask="4_mask.jpg"))
    text = problem(masked)
    for part in (
        "line 3: the mask has (height, width) (10, 10), rgb has (50, 64), depth has (50, 64); make them alike",
        "line 4: ",
        "2_mask.png is void everywhere",
        "3_mask.png has colours, but one class number a pixel was expected",
        "4_mask.jpg is a JPEG, which blurs labels; save it as PNG",
        "line 7: the mask has (height, width) (52, 64), depth has (10, 10); make them alike",
    ):
        assert part in text
    skipped = ready(masked, "data.corrupt=skip").skipped
    assert skipped["train"] == ["s1", "s3", "s4", "s5"]


def rewritten(masked: Path, table: dict[int, int]) -> None:
    """Other values in the masks."""
    for i in range(10):
        path = str(masked.parent / f"{i}_mask.png")
        mask = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        cv2.imwrite(path, np.vectorize(lambda v: table.get(v, v))(mask).astype(np.uint8))


@pytest.mark.parametrize(
    ("table", "found", "count", "few"),
    [
        (
            {0: 0, 1: 128, 2: 128},
            "0, 128, 255; counted up that would be 129 classes, but there is no 1, 2",
            129,
            2,
        ),
        (
            {1: 1, 2: 7},
            "0, 1, 7, 255; counted up that would be 8 classes, but there is no 2, 3, 4, 5, 6.",
            8,
            3,
        ),
        ({0: 1, 1: 2, 2: 3}, "1, 2, 3, 255; counted up that would be 4 classes, but there is no 0.", 4, 3),
    ],
)
def test_gaps_in_the_values_of_masks(masked, table, found, count, few):
    rewritten(masked, table)
    text = problem(masked)
    assert f"the masks hold the values {found}" in text
    assert f"data.classes={count}" in text
    assert f"if what occurs are the classes: data.classes={few}" in text
    assert "data.ignore_index=null, where 255 is one, too" in text
    assert ("data.label_offset=-1" in text) == (0 in table and table[0] == 1)
    data = ready(masked, f"data.classes={few}")
    assert data.spec.num_classes == few
    values = sorted({*table.values(), *({0} if 0 not in table else {})})
    assert data.spec.classes == tuple(map(str, values))
    assert data.splits["test"][Key(0, 0)].target.unique().tolist() == [*range(few), 255]
    assert ready(masked, f"data.classes={count}").spec.num_classes == count
    assert ready(masked, "data.ignore_index=null").spec.num_classes == few + 1


def test_a_changed_aspect_ratio_is_told(masked):
    data = built(masked, "data.modalities.depth.size=[50,64]", "data.modalities.rgb.size=[50,64]")
    assert "stretched" not in data.told(data.infer())
    data = built(masked)
    assert "3×32×32 from 50×64, stretched: width / height 1.28 becomes 1; mean" in data.told(data.infer())


def test_more_classes_than_said(masked):
    text = problem(masked, "data.classes=2", "data.corrupt=skip")
    assert "holds the value 2, but there are 2 classes; mend it, or set data.classes" in text


def test_a_label_or_a_mask(masked, classes):
    changed(masked, lambda rows: [row.update(label=str(i % 2)) for i, row in enumerate(rows)])
    assert "has label and mask; choose data.target=label or mask" in problem(masked)
    assert ready(masked, "data.target=label", "data.columns=[rgb]").spec.task == "classification"
    assert "data.target=mask, but" in problem(classes, "data.target=mask")


def test_the_same_file_in_train_and_test_is_told(table):
    rows = read_rows(table)
    for row, split in zip(rows, [*["train"] * 7, "val", "test", "test"], strict=True):
        row["split"] = split
    rows[9]["vector"] = "./vector/2.npy"
    shutil.copy(table.parent / "rgb/3.jpg", table.parent / "rgb/8.jpg")
    write_table(table, rows)
    data = built(table)
    text = data.told(data.infer())
    for part in (
        "warning    the same files in several splits: 2 (",
        "train line 4 (2.npy) = test line 11 (2.npy)",
        "copies: train line 5 (3.jpg) = test line 10 (8.jpg)",
    ):
        assert part in text


def test_depth_of_another_bit_depth_is_named(table):
    for i in range(10):
        depth = cv2.imread(str(table.parent / f"depth/{i}.png"), cv2.IMREAD_UNCHANGED)
        if i == 7:
            cv2.imwrite(str(table.parent / "depth/7.png"), (depth // 256).astype(np.uint8))
    text = problem(table, "data.modalities.depth.kind=depth", "data.inspect=100", "data.test=0.1")
    assert "7.png has uint8 numbers, where 16 bits were expected, as the first file has" in text


def test_words_where_a_file_is_missing(table):
    changed(table, lambda rows: (rows[1].update(vector="NaN"), rows[2].update(vector="n/a")))
    text = problem(table)
    assert (
        "column vector: words where a file is missing: 2 (line 3: NaN, line 4: n/a); leave such cells empty"
        in text
    )


def test_an_array_beside_masks_may_be_a_map(masked):
    for i in range(10):
        depth = cv2.imread(str(masked.parent / f"{i}_depth.png"), cv2.IMREAD_UNCHANGED)
        np.save(masked.parent / f"{i}_depth.npy", depth)
    changed(masked, lambda rows: [row.update(depth=f"{i}_depth.npy") for i, row in enumerate(rows)])
    for i in range(10):  # all of one size
        for part in ("mask", "rgb"):
            path = str(masked.parent / f"{i}_{part}.png")
            cv2.imwrite(path, cv2.imread(path, cv2.IMREAD_UNCHANGED)[:48])
        np.save(masked.parent / f"{i}_depth.npy", np.load(masked.parent / f"{i}_depth.npy")[:48])
    assert "if it is a map, say so: data.modalities.depth.kind=depth" in problem(masked)
    assert ready(masked, "data.modalities.depth.kind=depth").spec.modalities["depth"].kind == "depth"


def test_segmentation_takes_maps_alone(masked):
    np.save(masked.parent / "x.npy", np.zeros(4))
    changed(masked, lambda rows: [row.update(x="x.npy") for row in rows])
    assert "column x is vector [4]; segmentation needs images or depth, all of one size" in problem(masked)
    sizes = ["data.columns=[rgb,depth]", "data.modalities.rgb.size=[32,64]"]
    assert ready(masked, *sizes).spec.modalities["depth"].shape == (1, 32, 64)


# The configuration


def test_each_modality_has_an_encoder(classes):
    base = ["data=manifest", f"data.manifest={classes}"]
    config = compose_config([*base, "encoder.rgb.width=8", "encoder@encoder.audio=resnet18"])
    assert (config.encoder.rgb.width, config.encoder.audio.name, config.encoder.depth.name) == (
        8,
        "resnet18",
        "tiny",
    )
    assert list(config.data.columns) == list(COLUMNS)
    assert list(compose_config([*base, "data.columns=[rgb]"]).data.modalities) == ["rgb"]


def test_the_hash_follows_the_content(table, tmp_path):
    def hashed(path: Path) -> str:
        return config_hash(compose_config(["data=manifest", f"data.manifest={path}"]))

    before, other = hashed(table), tmp_path / "other.csv"
    shutil.copy(table, other)
    assert hashed(other) == before
    changed(other, lambda rows: rows.pop())
    assert hashed(other) != before


def test_a_table_that_changed_since(table):
    config = compose_config(["data=manifest", f"data.manifest={table}"])
    changed(table, lambda rows: rows.pop())
    with pytest.raises(UserError, match="has changed since this run was made"):
        construct(config.data).setup()


SMALL = [
    "method=dropout",
    "encoder=tiny",
    "encoder.width=8",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
]


@pytest.mark.slow
def test_two_processes_a_teacher_and_resuming(masked, tmp_path):
    """A student and its teacher on two processes, stopped and resumed, count as one process does."""
    table = changed(masked, lambda rows: rows[5].update(split="val"))  # one for each process
    given = ["data=manifest", f"data.manifest={table}", "data.batch_size=2", "trainer.devices=2"]
    given += [
        "data.columns=[rgb,depth]",
        "method=distillation",
        *SMALL[1:],
        "data.workers=0",
        "optimizer=sgd",
    ]
    given += [f"paths.outputs={tmp_path}/out", f"paths.run={tmp_path}/run", "allow=[tests]"]
    fault = f"{{_target_: tests.faults.Signal, where: batch, count: 2, number: 15, marker: {tmp_path}/m}}"
    assert main([*given, f"+callbacks.fault={fault}"]) != 0
    assert len(list((tmp_path / "out/teachers").glob("*/results.json"))) == 1
    assert not (tmp_path / "run/results.json").exists()
    assert main([f"resume={tmp_path}/run", "allow=[tests]"]) == 0
    assert evaluate([f"run={tmp_path}/run", "allow=[tests]"]) == 0
    (alone,) = (tmp_path / "run/evaluations").glob("*")
    assert read_results(alone)["combinations"] == read_results(tmp_path / "run")["combinations"]


@pytest.mark.slow
def test_a_whole_run_with_ten_rows(table, tmp_path, capsys):
    overrides = [
        *SMALL,
        "data=manifest",
        f"data.manifest={table}",
        "data.columns=[rgb,audio]",
        "encoder.rgb.width=4",
    ]
    assert main([*overrides, f"paths.run={tmp_path / 'run'}"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("to change") == 1
    assert "data.modalities.rgb.size=112" in printed
    result = read_results(tmp_path / "run")
    assert list(result["combinations"]) == ["rgb", "audio", "rgb+audio"]
    saved = load_run_config(tmp_path / "run").data.inferred
    assert saved.modalities.rgb.shape == [3, 32, 32]
    # The files may say something else later: what was inferred stays.
    for i in range(10):
        cv2.imwrite(str(table.parent / f"rgb/{i}.jpg"), np.full((300, 300, 3), 7, np.uint8))
    again = ["missing/pattern@missing.test=mcar", "missing.test.rate={rgb: 0.5, audio: 0}"]
    assert evaluate([f"run={tmp_path / 'run'}", *again]) == 0
    assert (
        evaluate(
            [f"run={tmp_path / 'run'}", "missing/pattern@missing.test=mcar", "missing.test.rate={rg: 0.5}"]
        )
        == 2
    )
    assert "names the modality 'rg'; manifest has rgb, audio" in capsys.readouterr().err


@pytest.mark.slow
def test_a_whole_run_of_segmentation_and_a_moved_table(masked, tmp_path):
    assert main([*SMALL, "data=manifest", f"data.manifest={masked}", f"paths.run={tmp_path / 'run'}"]) == 0
    assert read_results(tmp_path / "run")["primary"]["metric"] == "miou"
    moved = shutil.move(masked.parent, tmp_path / "moved elsewhere")
    assert evaluate([f"run={tmp_path / 'run'}", "allow=[tests]"]) == 2
    assert evaluate([f"run={tmp_path / 'run'}", f"data.manifest={moved}/my.csv", f"data.root={moved}"]) == 0


@pytest.mark.slow
def test_a_sweep_over_modalities(table, tmp_path, capfd):
    given = [*SMALL, "data=manifest", f"data.manifest={table}", f"paths.outputs={tmp_path / 'out'}"]
    assert main(["-m", *given, "data.columns=[rgb],[rgb,audio]", "encoder.rgb.width=4"]) == 0
    found = [list(read_results(path.parent)["combinations"]) for path in tmp_path.rglob("results.json")]
    assert sorted(found) == [["rgb"], ["rgb", "audio", "rgb+audio"]]
