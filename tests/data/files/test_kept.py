import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mmrobust.data.files.kept import cached, kept_value
from mmrobust.errors import UserError


class Decoder:
    """Counts how often it is asked; the array is the file's content."""

    calls = 0

    def __call__(self, path: Path) -> np.ndarray:
        self.calls += 1
        return np.frombuffer(path.read_bytes(), np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data/a.mat"
    path.parent.mkdir()
    path.write_bytes(b"abc")
    return path


def test_decoded_once(file: Path, tmp_path: Path) -> None:
    decode = Decoder()
    for _ in range(3):
        assert cached(tmp_path / "cache", file, "x", decode).tobytes() == b"abc"
    assert decode.calls == 1


def test_another_file_or_other_options(file: Path, tmp_path: Path) -> None:
    decode, folder = Decoder(), tmp_path / "cache"
    cached(folder, file, "x", decode)
    cached(folder, file, "y", decode)
    assert decode.calls == 2
    file.write_bytes(b"abcd")
    assert cached(folder, file, "x", decode).tobytes() == b"abcd"
    os.utime(file, ns=(0, 0))
    cached(folder, file, "x", decode)
    assert decode.calls == 4
    copy = file.with_name("b.mat")
    copy.write_bytes(b"wxyz")
    os.utime(copy, ns=(0, 0))  # same size and time
    assert cached(folder, copy, "x", decode).tobytes() == b"wxyz"


def test_damaged_entry_is_decoded_again(file: Path, tmp_path: Path) -> None:
    decode, folder = Decoder(), tmp_path / "cache"
    cached(folder, file, "x", decode)
    (entry,) = folder.iterdir()
    for damaged in (b"", entry.read_bytes()[:20], entry.read_bytes()[:-1], b"<html>"):
        entry.write_bytes(damaged)
        assert cached(folder, file, "x", decode).tobytes() == b"abc"
    assert decode.calls == 5
    cached(folder, file, "x", decode)
    assert decode.calls == 5


def test_folder_that_cannot_be_written(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    decode, folder = Decoder(), tmp_path / "file/cache"
    folder.parent.write_text("no folder")
    for _ in range(2):
        assert cached(folder, file, "x", decode).tobytes() == b"abc"
    assert decode.calls == 2
    assert caplog.text.count("nothing is kept in") == 1
    assert cached(None, file, "x", decode).tobytes() == b"abc"


def test_what_cannot_be_decoded_leaves_nothing(file: Path, tmp_path: Path) -> None:
    def fail(path: Path) -> np.ndarray:
        raise UserError("damaged")

    for _ in range(2):
        with pytest.raises(UserError, match="damaged"):
            cached(tmp_path / "cache", file, "x", fail)
    assert not list(tmp_path.glob("cache/*"))


def test_several_at_once(file: Path, tmp_path: Path) -> None:
    file.write_bytes(bytes(range(256)) * 400)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: cached(tmp_path / "cache", file, "x", Decoder()), range(32)))
    assert {x.tobytes() for x in found} == {file.read_bytes()}
    assert len(list((tmp_path / "cache").iterdir())) == 1  # no part is left behind


def test_a_value_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("MMROBUST_CACHE", str(tmp_path / "cache"))
    source, calls = tmp_path / "a", []
    source.write_text("one")

    def ask(options=1):
        def compute():
            calls.append(options)
            return [1.5, len(calls)]

        return kept_value("what", [source], options, compute)

    assert ask() == ask() == [1.5, 1]
    assert ask(2) == [1.5, 2]  # other options
    assert ask() == [1.5, 1]
    source.write_text("another")  # other files
    assert ask() == [1.5, 3]
    for kept in (tmp_path / "cache").iterdir():
        kept.write_text("damaged")
    assert ask() == [1.5, 4]
    monkeypatch.setenv("MMROBUST_CACHE", str(source))  # no folder: works, without remembering
    assert ask() == [1.5, 5]
