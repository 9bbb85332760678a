"""Arrays in HDF5 files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmrobust.errors import UserError


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
