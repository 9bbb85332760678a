"""Files that datasets are made of: what lies in folders, tables in MATLAB's two formats, and what is kept of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from mmrobust.errors import UserError

log = logging.getLogger(__name__)


def exists(path: Path, folders: dict[str, set[str]]) -> bool:
    """Whether there is such a file; lists each folder once, into `folders`."""
    return path.name in names_in(path.parent, folders)


def names_in(path: Path, folders: dict[str, set[str]]) -> set[str]:
    """The names in a folder, none if it does not exist; lists each folder once, into `folders`."""
    folder = os.fspath(path)
    if folder not in folders:
        folders[folder] = set(os.listdir(folder)) if path.is_dir() else set()  # noqa: PTH208
    return folders[folder]


def find(name: str, folders: Sequence[Path], problems: list[str], remedy: str) -> Path | None:
    """The file of that name in the first of the folders that has it; else adds to `problems`."""
    for folder in folders:
        if (folder / name).is_file():
            log.info("%s: %s", name, folder / name)
            return folder / name
    problems.append(f"no {name} in any of {', '.join(map(str, folders))}; {remedy}")
    return None


def read_mat(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Some variables of a MATLAB file of versions 4 to 7, squeezed.

    Raises:
        UserError: it cannot be read, or one of them is not there.
    """
    try:
        found = scipy.io.loadmat(path, variable_names=list(keys), squeeze_me=True, struct_as_record=False)
    except Exception as error:  # whatever a damaged file makes of the parser
        raise UserError(
            f"{path} cannot be read as a MATLAB file ({' '.join(str(error).split())}); get it again"
        ) from error
    for key in keys:
        if key not in found:
            raise UserError(f"{path} has no variable {key}; get the file again")
    return found


class Tables:
    """An HDF5 file, such as MATLAB's version 7.3, opened when first used and anew in every process: an open one must
    not be shared with the loader's workers. MATLAB stores the first axis last, so arrays come with axes reversed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, h5py.File] | None = None  # process, file

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None}

    @property
    def file(self) -> h5py.File:
        """Raises: UserError: missing, cut short, no HDF5."""
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                self._opened = os.getpid(), h5py.File(self.path, "r")
            except OSError as error:
                size = self.path.stat().st_size if self.path.is_file() else 0
                cut = re.search(r"truncated file: .*stored_eof = (\d+)", str(error))
                what = f"is cut short: {size} of {cut[1]} bytes" if cut else f"is no HDF5 file ({error})"
                raise UserError(f"{self.path} {what}; get it again") from error
        return self._opened[1]

    def array(self, name: str) -> h5py.Dataset:
        """One of its arrays, of which nothing is read yet. Raises: UserError: there is none of that name."""
        found = self.file.get(name)
        if not isinstance(found, h5py.Dataset):
            raise UserError(f"{self.path} has no array {name}; get the file again")
        return found

    def row(self, name: str, row: int) -> np.ndarray:
        """One row of an array, axes in MATLAB's order: of (N, 3, W, H) it is (H, W, 3)."""
        return self._read(lambda: self.array(name)[row].T, f"{name}[{row}]")

    def referred(self, name: str, row: int) -> np.ndarray:
        """What the row of an array of references (as MATLAB's cells are stored) refers to, axes in MATLAB's order."""
        cells = self.array(name)
        return self._read(
            lambda: self.file[cells[np.unravel_index(row, cells.shape)]][()].T, f"{name}[{row}]"
        )

    def text(self, name: str, row: int) -> str:
        """A string among references."""
        return "".join(map(chr, self.referred(name, row).ravel()))

    def _read(self, read: Callable[[], np.ndarray], what: str) -> np.ndarray:
        try:
            return np.ascontiguousarray(read())
        except (OSError, RuntimeError, ValueError, KeyError, IndexError) as error:
            raise UserError(f"{what} of {self.path} cannot be read ({error}); get the file again") from error


def cached(what: str, files: Iterable[Path], options: Any, compute: Callable[[], Any]) -> Any:
    """What `compute` returns (plain data), kept in `$MMROBUST_CACHE`, else `~/.cache/mmrobust`, for as long as the
    files keep their names, sizes and times of change and the options stay the same."""
    stats = {os.fspath(file.absolute()): file.stat() for file in sorted(files)}
    stamps = [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats.items()]
    name = hashlib.sha256(json.dumps([what, stamps, options]).encode()).hexdigest()[:24]
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get("MMROBUST_CACHE") or Path(home) / "mmrobust") / f"{what}-{name}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text())
    value = compute()
    try:  # several processes may do this at once: the last one wins, with the same content
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            json.dump(value, file)
        Path(file.name).replace(path)
    except OSError as error:
        log.info(
            "%s cannot be kept in %s (%s); it is computed anew each time", what, path.parent, error.strerror
        )
    return value
