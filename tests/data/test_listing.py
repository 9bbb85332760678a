"""Files that a table names: the same in several splits, changed behind the table's back."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmrobust.data import listing
from mmrobust.data.listing import Listing, in_two_splits


def write(path: Path, *values: float) -> str:
    np.save(path, np.array(values))
    return path.name


def shared(root: Path, *cells: str) -> list[str]:
    """The first cell is train's, the second val's, the others test's."""
    files, splits = Listing(root), ["train", "val", *["test"] * len(cells)]
    return in_two_splits(
        (split, line, files[cell])
        for line, (split, cell) in enumerate(zip(splits, cells, strict=False), start=2)
    )


@pytest.mark.parametrize(
    "other", ["a.npy", "./a.npy", "../{0}/a.npy", "{1}", "link.npy", "hard.npy", "folder/a.npy"]
)
def test_all_names_of_one_file(tmp_path, other):
    write(tmp_path / "a.npy", 1, 2), write(tmp_path / "b.npy", 3, 4)
    (tmp_path / "link.npy").symlink_to("a.npy")
    os.link(tmp_path / "a.npy", tmp_path / "hard.npy")
    (tmp_path / "folder").symlink_to(".")
    cell = other.format(tmp_path.name, tmp_path / "a.npy")
    name = Path(cell).name
    assert shared(tmp_path, "a.npy", "b.npy", cell) == [f"train line 2 (a.npy) = test line 4 ({name})"]
    assert not shared(tmp_path, "a.npy", "b.npy")


def test_copies_and_what_only_looks_alike(tmp_path):
    values = np.zeros(3000)
    np.save(tmp_path / "a.npy", values)
    shutil.copy(tmp_path / "a.npy", tmp_path / "copy.npy")
    values[1500] = 1  # neither in the first bytes nor in the last
    np.save(tmp_path / "middle.npy", values)
    write(tmp_path / "small.npy", 1)
    assert shared(tmp_path, "a.npy", "small.npy", "middle.npy", "copy.npy") == [
        "copies: train line 2 (a.npy) = test line 5 (copy.npy)"
    ]


def test_contents_of_very_many_files_are_not_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "COMPARED", 1)
    write(tmp_path / "a.npy", 1), write(tmp_path / "copy.npy", 1)
    assert not shared(tmp_path, "a.npy", "copy.npy")


def test_backslashes_between_folders(tmp_path):
    (tmp_path / "img").mkdir()
    write(tmp_path / "img/a.npy", 1)
    files = Listing(tmp_path)
    assert files["img\\a.npy"].path == tmp_path / "img/a.npy"
    assert files["img\\b.npy"].size < 0
    assert files["img"].size < 0
