import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrobust.config.compose import compose_config
from mmrobust.data.files.kept import cached, home
from mmrobust.errors import UserError


class Reader:
    """Counts how often it is asked; the array is the file's content."""

    def __init__(self, file: Path) -> None:
        self.file, self.calls = file, 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return np.frombuffer(self.file.read_bytes(), np.uint8)


def read(folder: Path | None, options: Any, reader: Reader) -> bytes:
    return cached(folder, "a", [reader.file], options, reader).tobytes()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data/a.mat"
    path.parent.mkdir()
    path.write_bytes(b"abc")
    return path


def test_computed_once(file: Path, tmp_path: Path) -> None:
    reader = Reader(file)
    for _ in range(3):
        assert read(tmp_path / "cache", "x", reader) == b"abc"
    assert reader.calls == 1


def test_another_file_or_other_options(file: Path, tmp_path: Path) -> None:
    reader, folder = Reader(file), tmp_path / "cache"
    read(folder, ["x", 1], reader)
    read(folder, ["x", 2], reader)
    assert reader.calls == 2
    file.write_bytes(b"abcd")
    assert read(folder, ["x", 1], reader) == b"abcd"
    os.utime(file, ns=(0, 0))
    read(folder, ["x", 1], reader)
    assert reader.calls == 4
    copy = file.with_name("b.mat")
    copy.write_bytes(b"wxyz")
    os.utime(copy, ns=(0, 0))  # same size and time
    assert read(folder, ["x", 1], Reader(copy)) == b"wxyz"


def test_numbers_and_texts_come_back_as_they_were(file: Path, tmp_path: Path) -> None:
    for values in ([0.1, 1 / 3, 1e-300], ["kv1/a", "b é"]):
        for _ in range(2):
            assert cached(tmp_path, "list", [file], len(values), lambda v=values: v).tolist() == values


def test_where_nobody_names_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMROBUST_CACHE", str(tmp_path / "mine"))
    assert home() == tmp_path / "mine" == Path(compose_config([]).paths.cache)
    monkeypatch.delenv("MMROBUST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "mmrobust" == Path(compose_config([]).paths.cache)


def test_damaged_entry_is_computed_again(file: Path, tmp_path: Path) -> None:
    reader, folder = Reader(file), tmp_path / "cache"
    read(folder, "x", reader)
    (entry,) = folder.iterdir()
    for damaged in (b"", entry.read_bytes()[:20], entry.read_bytes()[:-1], b"<html>"):
        entry.write_bytes(damaged)
        assert read(folder, "x", reader) == b"abc"
    assert reader.calls == 5
    read(folder, "x", reader)
    assert reader.calls == 5


def test_folder_that_cannot_be_written(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader, folder = Reader(file), tmp_path / "file/cache"
    folder.parent.write_text("no folder")
    for _ in range(2):
        assert read(folder, "x", reader) == b"abc"
    assert reader.calls == 2
    assert caplog.text.count("nothing is kept in") == 1
    assert read(None, "x", reader) == b"abc"


def test_what_cannot_be_computed_leaves_nothing(file: Path, tmp_path: Path) -> None:
    def fail() -> np.ndarray:
        raise UserError("damaged")

    for _ in range(2):
        with pytest.raises(UserError, match="damaged"):
            cached(tmp_path / "cache", "a", [file], "x", fail)
    assert not list(tmp_path.glob("cache/*"))


def test_several_at_once(file: Path, tmp_path: Path) -> None:
    file.write_bytes(bytes(range(256)) * 400)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: read(tmp_path / "cache", "x", Reader(file)), range(32)))
    assert set(found) == {file.read_bytes()}
    assert len(list((tmp_path / "cache").iterdir())) == 1  # no part is left behind
