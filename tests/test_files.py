"""Files appear whole or not at all; hashes of plain data."""

from pathlib import Path

import pytest

from mmrobust.files import file_hash, replacing, short_hash, write_text


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
