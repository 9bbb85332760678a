"""A user's own table of files, a CSV: its columns, its rows with their lines. Imports no torch."""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrobust.errors import UserError
from mmrobust.files import expanded, short_hash

# The columns that may hold the targets -> the task.
TARGETS = {
    "label": "classification",
    "mask": "segmentation",
    "value": "regression",
    "labels": "multilabel",
}
OWN = ("id", "split", *TARGETS)  # the columns that are no modalities

# Of files, by the ends of their names.
TYPES = {
    "images": (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"),
    "sounds": (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".au"),
    "arrays": (".npy",),
}
# Rows beside those of modalities in every result.
SUMMARIES = ("average", "worst", "full", "available")
# Keys beside which encoder.<modality> lies, too.
TAKEN = ("name", "pretrained", "weights", "norm", "width", "lr_factor", "options", "decoder", *SUMMARIES)
EXPECTED = (
    "id, split, label, mask, value or labels, and one column of file names or sentences for each modality"
)
EXCEL = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


@dataclass(frozen=True)
class Row:
    """One row: the line where it begins, counted from 1, and its stripped cells."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A CSV that was read."""

    path: Path
    header: tuple[str, ...]
    rows: list[Row]


def type_of(path: Path | str) -> str | None:
    """`images`, `sounds`, `arrays`; None for any other file."""
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 (a hundred thousand times)
    return next((name for name, ends in TYPES.items() if suffix in ends), None)


def content_hash(path: Path | str) -> str:
    """Sixteen letters that two tables share if they say the same, byte by byte."""
    return short_hash(_bytes(Path(path)))


def modality_columns(path: Path | str, chosen: Sequence[str] | None = None) -> list[str]:
    """The modalities of a table: the chosen columns, or all that are not OWN.

    Raises:
        UserError: the table cannot be read, has no targets or no such columns, or has names that cannot be.
    """
    path = Path(path)
    header = _header(path, next(_lines(path), (1, []))[1])
    problems = []
    others = [name for name in header if name not in OWN]
    if not set(TARGETS) & set(header):
        wanted = {name.lower(): name for name in header}
        hint = next((f"; rename {wanted[t]!r} to {t!r}" for t in TARGETS if t in wanted), "")
        problems.append(f"no column 'label', 'mask', 'value' or 'labels'{hint}")
    names = list(others if chosen is None else chosen)
    for name in names:
        if name not in others:
            close = difflib.get_close_matches(name, others, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(others)}"
            problems.append(f"data.columns names {name!r}, which is no modality's column; {hint}")
        elif not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or name in TAKEN:
            problems.append(
                f"column {name!r} cannot be a modality's name; rename it (letters, digits, underscores; not "
                f"{', '.join(TAKEN)}), or leave it out: data.columns=[...]"
            )
    problems += [f"data.columns names {name!r} twice" for name, n in Counter(names).items() if n > 1]
    if not names:
        problems.append("no column of file names")
    if problems:
        found = f"it has the columns {', '.join(header)}; expected are {EXPECTED}"
        raise UserError(f"data.manifest={path}: " + "; ".join([*problems, found]))
    return names


def open_table(path: Path | str) -> tuple[tuple[str, ...], Iterator[tuple[int, list[str]]]]:
    """The header of a CSV, and its rows one after the other: the line where each begins, and its stripped cells.

    Raises:
        UserError: it is missing or no CSV; where it stops being one, there.
    """
    path = Path(path)
    lines = _lines(path)
    return _header(path, next(lines, (1, []))[1]), lines


def read_table(path: Path | str) -> Table:
    """Read a CSV, separated by commas, semicolons or tabs, in UTF-8 with or without a byte-order mark.

    Raises:
        UserError: it is missing, no CSV, or has rows of another length than its header.
    """
    path = Path(path)
    header, lines = open_table(path)
    rows, wrong = [], []
    for line, cells in lines:
        if len(cells) != len(header):
            wrong.append(f"line {line}: {len(cells)}")
        rows.append(Row(line, dict(zip(header, cells, strict=False))))
    if wrong:
        more = ", ..." if len(wrong) > 3 else ""
        raise UserError(
            f"data.manifest={path}: {len(wrong)} rows have another number of cells than the {len(header)} columns "
            f"({', '.join(wrong[:3])}{more}); put names that hold the separator in quotes"
        )
    if not rows:
        raise UserError(f"data.manifest={path} has no rows below its header; add one for each sample")
    return Table(path, header, rows)


def _header(path: Path, cells: Sequence[str]) -> tuple[str, ...]:
    if not cells:
        raise UserError(f"data.manifest={path} is empty; its first line names the columns: {EXPECTED}")
    if cells[0] == "" and "" not in cells[1:]:
        raise UserError(
            f"data.manifest={path}: the first column has no name, like the index that pandas writes; save it with "
            "index=False, or name the column id"
        )
    if twice := [name or "(no name)" for name, n in Counter(cells).items() if n > 1 or not name]:
        raise UserError(
            f"data.manifest={path}: line 1 names {', '.join(twice)} more than once or not at all; every column needs "
            "a name of its own"
        )
    return tuple(cells)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, with the line where each begins; never holds the whole file."""
    try:
        with expanded(path).open("rb") as file:
            _check_text(path, file.read(4096))
            file.seek(0)
            yield from _records(path, io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    except UnicodeDecodeError as error:
        line = _line_of(path, error)
        raise UserError(f"data.manifest={path}: line {line} is not UTF-8; save it as CSV in UTF-8") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _records(path: Path, text: io.TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
    first, before = text.readline(), 0
    while first and not first.strip():
        first, before = text.readline(), before + 1
    separator = max(",;\t", key=first.count)
    if said := re.fullmatch(r'"?sep=([,;\t])"?', first.strip(" \r\n")):  # as Excel writes it
        separator, before = said[1], before + 1
    else:
        text.seek(0)
        before = 0
    reader = csv.reader(text, delimiter=separator, strict=True)
    skipped = before
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield before + 1, [cell.strip() for cell in cells]
            before = skipped + reader.line_num
    except csv.Error as error:
        raise UserError(
            f"data.manifest={path}: line {before + 1} cannot be read as CSV: {error}; mind its quotes"
        ) from error


def _check_text(path: Path, head: bytes) -> None:
    """Raises: UserError: a file begins so that is no text in UTF-8."""
    if head.startswith(EXCEL):
        raise UserError(f"data.manifest={path} is an Excel file; save it as CSV (UTF-8) and name that")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise UserError(f"data.manifest={path} is UTF-16 or no text at all; save it as CSV in UTF-8")


def _line_of(path: Path, error: UnicodeDecodeError) -> int:
    """Where a table is not UTF-8; a stream tells the place in its buffer alone."""
    data = _bytes(path)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as whole:
        error = whole
    return data.count(b"\n", 0, error.start) + 1


def _bytes(path: Path) -> bytes:
    try:
        return expanded(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> UserError:
    what = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    return UserError(f"data.manifest={path} {what}; name your CSV: data.manifest=my.csv (here: {Path.cwd()})")
