"""What is made is what was made by hand, from every form in which a download comes."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmrobust.prepare.__main__ import main
from mmrobust.prepare.record import read_manifest
from mmrobust.prepare.synthetic import cityscapes, cremad, kinetics_sounds, nyuv2, sunrgbd
from tests.data.cityscapes_tree import prepare_cityscapes
from tests.data.nyuv2_tree import prepare_nyuv2
from tests.data.sunrgbd_tree import prepare_sunrgbd

DATA = Path(os.environ.get("MMROBUST_DATA", "data"))


def prepare(dataset: str, raw: Path, *more: str) -> Path:
    """The prepared folder, without anything skipped."""
    out = raw.with_name("out")
    assert main([dataset, f"raw={raw}", f"out={out}", "workers=2", *more]) == 0
    return out


def content(path: Path) -> np.ndarray:
    return np.load(path) if path.suffix == ".npy" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def assert_alike(found: Path, expected: Path, patterns: tuple[str, ...]) -> None:
    """The same numbers of the same type in all files of the expected folder."""
    paths = [path for pattern in patterns for path in expected.rglob(pattern)]
    assert len(paths) > 20
    for path in paths:
        ours, theirs = content(found / path.relative_to(expected)), content(path)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs), path


def test_nyuv2_equals_what_is_made_by_hand(tmp_path):
    nyuv2.make(tmp_path / "raw")
    prepare_nyuv2(tmp_path / "raw", tmp_path / "hand")
    out = prepare("nyuv2", tmp_path / "raw")
    assert_alike(out, tmp_path / "hand", ("*.png",))
    assert (out / "train.txt").read_text() == (tmp_path / "hand/train.txt").read_text()


def test_cityscapes_equals_what_is_made_by_hand(tmp_path):
    cityscapes.make(tmp_path / "raw")
    prepare_cityscapes(tmp_path / "raw", tmp_path / "hand")
    out = prepare("cityscapes", tmp_path / "raw")
    assert_alike(out, tmp_path / "hand", ("*.png",))
    for path in (tmp_path / "hand").rglob("*.npy"):  # ours has no depth beyond 300 m, which no reader takes
        near = np.where(np.load(path) > 300, 0, np.load(path))
        assert np.array_equal(np.load(out / path.relative_to(tmp_path / "hand")), near)


def test_sunrgbd_equals_what_is_made_by_hand(tmp_path):
    for name in ("raw", "hand"):
        sunrgbd.make(tmp_path / name)
    prepare_sunrgbd(tmp_path / "hand")
    out = prepare("sunrgbd", tmp_path / "raw")
    assert_alike(out, tmp_path / "hand", ("*.png", "*.jpg", "label.npy"))
    for name in ("train_rgb.txt", "test_rgb.txt"):
        rows = [sorted((root / name).read_text().split()) for root in (out, tmp_path / "hand")]
        assert rows[0] == rows[1]


def test_files_that_do_not_come_with_a_download(tmp_path, capsys):
    nyuv2.make(tmp_path / "raw")
    (tmp_path / "lists").mkdir()
    for name in ("splits.mat", "classMapping40.mat"):
        (tmp_path / "raw" / name).rename(tmp_path / "lists" / name)
    assert main(["nyuv2", f"raw={tmp_path / 'raw'}", f"out={tmp_path / 'out'}"]) == 2
    told = capsys.readouterr().err
    assert "2 (splits.mat, classMapping40.mat)" in told
    assert "lists=" in told
    prepare("nyuv2", tmp_path / "raw", f"lists={tmp_path / 'lists'}")


def test_cremad_without_lists_and_from_mp4(tmp_path, capsys):
    pytest.importorskip("av")
    raw = tmp_path / "raw"
    cremad.make(raw, actors=1, suffix=".mp4")
    (raw / "VideoFlash").rename(raw / "VideoMP4")
    for name in ("train.csv", "test.csv"):
        (raw / name).unlink()
    out = prepare("cremad", raw)
    told = capsys.readouterr()
    assert "data.split=actor" in told.err
    assert "in no list: 18" in told.out
    assert read_manifest(out).counts() == {"": dict.fromkeys(("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"), 3)}


def test_kinetics_in_one_folder_with_a_table(tmp_path, capsys):
    pytest.importorskip("av")
    raw = tmp_path / "raw"
    kinetics_sounds.make(raw, each=1)
    for half in ("train", "val"):
        rows = ["label,youtube_id,time_start,time_end,split"]
        for path in sorted((raw / half).glob("*/*.mp4")):
            rows.append(f"{path.parent.name},{path.stem[:11]},{int(path.stem[12:18])},17,{half}")
            path.rename(raw / half / path.name)
        rows[1] = rows[1].replace("bowling", "air drumming")
        (raw / f"{half}.csv").write_text("\n".join(rows))
    out = prepare("kinetics_sounds", raw)
    assert "2 clips of 1 other classes are left out" in capsys.readouterr().err
    assert read_manifest(out).counts() == {
        "train": {"bowling": 1, "playing_drums": 2, "tapping_pen": 2},
        "test": {"playing_drums": 1, "tapping_pen": 1},
    }


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "avmnist").is_dir(), reason="no avmnist; set MMROBUST_DATA")
def test_the_real_avmnist_holds(capsys):
    assert main(["avmnist", f"out={DATA / 'avmnist'}", "verify=true"]) == 0
    assert "all holds" in capsys.readouterr().out


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "nyuv2").is_dir(), reason="no nyuv2; set MMROBUST_DATA")
def test_the_real_nyuv2_is_told_to_be_small(capsys):
    assert main(["nyuv2", f"out={DATA / 'nyuv2'}", "verify=true"]) == 1
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert [row[1:4] for row in rows if row[:1] == ["NO"]] == [
        ["size", "of", part] for part in ("rgb", "depth", "labels_40")
    ]


@pytest.mark.data
@pytest.mark.parametrize(
    ("dataset", "rows"), [("ave", 5), ("cremad", 3), ("kinetics_sounds", 2), ("sunrgbd", 3)]
)
def test_official_numbers_are_those_of_the_real_lists(dataset, rows, capsys):
    """Of lists alone: what needs the files does not hold, what the lists say does."""
    folder = DATA / f"{dataset}_meta"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set MMROBUST_DATA")
    assert main([dataset, f"out={folder}", "verify=true"]) == 1
    lines = capsys.readouterr().out.splitlines()
    words = ("in classes", "in labels", "of sensors", "in train and")
    told = [line for line in lines if any(word in line for word in words) and "scenes" not in line]
    assert len(told) >= rows
    assert all(line.startswith("yes") for line in told)
