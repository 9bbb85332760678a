"""Files appear whole or not at all, and an error of the disk says which file it was; hashes of plain data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmrobust.files import expanded, file_hash, replacing, short_hash, write_text


def test_file_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with replacing(path) as part:
            part.write_text("half of the n")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert path.read_text() == "old"
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_short_hash() -> None:
    assert short_hash("abc") == short_hash(b"abc") == "ba7816bf8f01cfea"
    assert short_hash({"a": 1, "b": [2]}, 8) == short_hash({"b": [2], "a": 1}, 8)
    assert len(short_hash("abc", 20)) == 20


def test_an_error_of_the_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_text(path, "before")

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        write_text(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_home_folders() -> None:
    assert expanded("~") == Path.home()
    assert expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
