"""The table of predictions: written row by row beside its place, which it takes when it is whole. Imports no torch."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from mmrobust.errors import UserError
from mmrobust.files import naming

FIRST, LAST = ("id", "available"), "error"


class PredictionTable:
    """Rows in the order of the samples, one for each, also of those that failed: so what is there says where to go on.

    Args:
        path: of the finished CSV.
        columns: between FIRST and LAST.
        identity: letters that another request does not have; what one left half done is no other's.
        batch: rows that were computed together: what is left of such a batch is done again, to the same numbers.

    Attributes:
        done: rows that were there already.
        failed: rows that hold an error.
    """

    def __init__(self, path: Path, columns: Sequence[str], identity: str, batch: int) -> None:
        self.path, self.columns = path, (*FIRST, *columns, LAST)
        self.part = path.with_name(f"{path.name}.{identity}.part")
        self.batch, self.done, self.failed = batch, 0, 0

    def __enter__(self) -> PredictionTable:
        """Raises: UserError: the folder is not there, or not writable."""
        if self.path.is_dir():
            raise UserError(
                f"output={self.path} is a folder; name a file: output={self.path / 'predictions.csv'}"
            )
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._go_on()
            self.file = self.part.open("a", encoding="utf-8", newline="")
            if not self.done and not self.file.tell():
                self.write([dict(zip(self.columns, self.columns, strict=True))])
                self.done = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            # What could not be written then cannot now; that was said.
            with suppress(OSError):
                self.file.close()
            return
        with naming(self.path):
            self.file.close()
            self.part.replace(self.path)

    def _go_on(self) -> None:
        """Count the rows of whole batches that are there; what follows is cut off."""
        if not self.part.is_file():
            return
        whole, place, failed = 0, 0, 0
        with self.part.open("r+b") as file:
            for lines, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break
                place += len(line)
                if lines:
                    (cells,) = csv.reader([line.decode("utf-8", "replace")])
                    failed += bool(cells[-1])
                if lines % self.batch == 0:
                    whole, self.done, self.failed = place, lines, failed
            file.truncate(whole)

    def write(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Add rows, by column, so that a killed process has left them. Raises: UserError: the disk takes no more."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in rows:
            # A row is a line, so that lines can be counted.
            writer.writerow([" ".join(row.get(c, "").splitlines()) for c in self.columns])
            self.done += 1
            self.failed += bool(row.get(LAST)) and row[LAST] != LAST
        try:
            self.file.write(text.getvalue())
            self.file.flush()
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; make room, then the same command goes on"
            ) from error


def stamp(path: Path) -> list[object]:
    """What tells one state of a file or folder from another."""
    found = os.stat(path)  # noqa: PTH116
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]
