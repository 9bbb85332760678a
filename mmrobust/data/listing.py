"""The files that a user's table names, each looked at once: whether they are there, are the same, or have changed since.
Imports no torch."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mmrobust.data.table.csv_file import TARGETS, read_table, type_of
from mmrobust.errors import UserError

COMPARED = 5000  # files of equal sizes whose content is looked at, at most
PART = 4096  # bytes at either end, which tell most files apart

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listed:
    """A file that a cell names.

    Args:
        path: where it lies.
        type: see `type_of`.
        size: bytes; -1 where there is no such file.
        changed: when, in ns.
        place: device and number on it: the same for all names of one file.
    """

    path: Path
    type: str | None
    size: int
    changed: int
    place: tuple[int, int]


class Listing:
    """The files below a folder by the cells that name them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: dict[str, Listed] = {}

    def __getitem__(self, cell: str) -> Listed:
        """Its file; backslashes between folders are those of Windows."""
        if cell not in self.found:
            listed = _look(self.root / cell)
            if listed.size < 0 and "\\" in cell:
                listed = _look(self.root / cell.replace("\\", "/"))
            self.found[cell] = listed
        return self.found[cell]

    @property
    def by_path(self) -> dict[Path, Listed]:
        return {listed.path: listed for listed in self.found.values()}

    def stamp(self) -> dict[str, Any]:
        """What shows that files have changed: their number, and hashes of their sizes and times."""
        rows = sorted((cell, f.size, f.changed) for cell, f in self.found.items())
        return {
            "files": len(rows),
            "sizes": _digest([row[:2] for row in rows]),
            "times": _digest([row[2] for row in rows]),
        }


def _look(path: Path) -> Listed:
    kind = type_of(path)
    try:
        found = path.stat()
    except (OSError, ValueError):  # a name with a zero byte
        return Listed(path, kind, -1, 0, (0, 0))
    if not stat.S_ISREG(found.st_mode):
        return Listed(path, kind, -1, 0, (0, 0))
    return Listed(path, kind, found.st_size, found.st_mtime_ns, (found.st_dev, found.st_ino))


def _digest(rows: object) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def changed_since(stamp: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """What differs from an earlier stamp, in words; empty if nothing does, or there was none."""
    if not stamp or dict(stamp) == dict(now):
        return ""
    if (stamp["files"], stamp["sizes"]) != (now["files"], now["sizes"]):
        return "files of other sizes"
    return "files that are newer or older"


def warn_of_changes(table: Path, stamp: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Say once, in the log and on the terminal, that files differ from those of an earlier stamp."""
    if how := changed_since(stamp, now):
        told = f"{table} names {how} than the run was made with"
        log.warning("%s", told)
        if os.environ.get("RANK", "0") == "0":
            print(f"warning: {told}", file=sys.stderr, flush=True)


def changed_files(data: Mapping[str, Any]) -> str:
    """The same of the data of a run, as its config.yaml has it; empty where its files cannot be listed."""
    stamp, columns = (data.get("inferred") or {}).get("files"), data.get("columns")
    if not stamp or not columns:
        return ""
    try:
        now = _stamp_of(str(data["manifest"]), data.get("root"), tuple(columns), data.get("target"))
    except UserError:  # told where the table is read
        return ""
    return changed_since(stamp, now)


@cache
def _stamp_of(
    manifest: str, root: str | None, columns: tuple[str, ...], target: str | None
) -> dict[str, Any]:
    table = read_table(manifest)
    target = target or next(name for name in TARGETS if name in table.header)
    listing = Listing(Path(root or Path(manifest).parent).expanduser())
    for row in table.rows:
        for column in (*columns, *(["mask"] if target == "mask" else [])):
            if cell := row.cells.get(column):
                listing[cell]
    return listing.stamp()


def in_two_splits(used: Iterable[tuple[str, int, Listed]]) -> list[str]:
    """Files that rows of several splits name, or copies of them, in words.

    Args:
        used: (split, line, file) for every cell.
    """
    places: dict[tuple[int, int], dict[str, tuple[int, Listed]]] = {}
    for split, line, listed in used:
        if listed.size > 0:
            places.setdefault(listed.place, {}).setdefault(split, (line, listed))
    found = [_told(by_split, "") for by_split in places.values() if len(by_split) > 1]
    sizes: dict[int, list[dict[str, tuple[int, Listed]]]] = {}
    for by_split in places.values():
        if len(by_split) == 1:
            sizes.setdefault(next(iter(by_split.values()))[1].size, []).append(by_split)
    alike = {size: group for size, group in sizes.items() if len({s for b in group for s in b}) > 1}
    if sum(map(len, alike.values())) > COMPARED:
        return found
    for size, group in alike.items():
        contents: dict[str, dict[str, tuple[int, Listed]]] = {}
        parts: dict[str, list[dict[str, tuple[int, Listed]]]] = {}
        for by_split in group:
            parts.setdefault(_ends(next(iter(by_split.values()))[1].path, size), []).append(by_split)
        for part in parts.values():
            if len({s for b in part for s in b}) < 2:
                continue
            for by_split in part:
                (split, (line, listed)) = next(iter(by_split.items()))
                contents.setdefault(_content(listed.path), {}).setdefault(split, (line, listed))
        found += [_told(by_split, "copies: ") for by_split in contents.values() if len(by_split) > 1]
    return found


def _told(by_split: Mapping[str, tuple[int, Listed]], what: str) -> str:
    rows = [f"{split} line {line} ({listed.path.name})" for split, (line, listed) in by_split.items()]
    return what + " = ".join(rows)


def _ends(path: Path, size: int) -> str:
    try:
        with path.open("rb") as file:
            first = file.read(PART)
            file.seek(max(size - PART, 0))
            return hashlib.sha256(first + file.read(PART)).hexdigest()
    except OSError:
        return os.fspath(path)


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return os.fspath(path)
