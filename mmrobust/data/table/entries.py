"""The rows of a user's table as samples: everything that is wrong with them, at once, with their lines; the splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrobust.data.audit import Audit
from mmrobust.data.listing import Listing
from mmrobust.data.progress import told
from mmrobust.data.table.csv_file import TARGETS, TYPES, Table, type_of
from mmrobust.data.targets import TARGET_COLUMNS
from mmrobust.errors import Problems, UserError, summarised

SPLITS = ("train", "val", "test")
MISSING = ("nan", "none", "null", "na", "n/a", "-", "?")  # how some programs write an empty cell


@dataclass(frozen=True)
class Entry:
    """One sample: the line of its row, its files or sentences (None where the cell is empty), and what the cell of its
    target says, or the file of its mask."""

    line: int
    id: str
    files: Mapping[str, Path | str | None]
    target: str | Path


Entries = dict[str, list[Entry]]  # by split


def read_entries(
    table: Table,
    columns: Sequence[str],
    texts: frozenset[str],
    target: str,
    listing: Listing,
    audit: Audit,
) -> Entries:
    """The rows of a table; those without a split are in train. Adds to `audit`. `texts` are the columns of sentences."""
    first: dict[str, int] = {}
    found: Entries = {split: [] for split in SPLITS}
    twice, unknown, empty, blank, foreign, absent = ([] for _ in range(6))
    types: dict[str, dict[str, list[str]]] = {name: {} for name in columns}
    in_words: dict[str, list[str]] = {name: [] for name in columns}
    for row in told(table.rows, f"{table.path}: looking for files, rows"):
        name, split = row.cells.get("id") or f"line {row.line}", row.cells.get("split") or "train"
        place = f"line {row.line}: {name}"
        cells = {c: row.cells[c] or None for c in columns}
        listed = {c: listing[cell] for c, cell in cells.items() if cell and c not in texts}
        files = {c: file.path for c, file in listed.items()}
        named = row.cells[target]
        if name in first:
            twice.append(f"{place}, first in line {first[name]}")
        first.setdefault(name, row.line)
        if split not in SPLITS:
            unknown.append(f"line {row.line}: {split}")
        if not named and not (target in TARGET_COLUMNS and TARGET_COLUMNS[target].may_be_empty):
            blank.append(place)
        if not any(cells.values()):
            empty.append(place)
        for column, file in listed.items():
            if file.type is None and row.cells[column].lower() in MISSING:
                in_words[column].append(f"line {row.line}: {row.cells[column]}")
                continue
            types[column].setdefault(file.type or "", []).append(f"line {row.line}: {file.path.name}")
            if file.size < 0:
                absent.append(f"line {row.line}: {file.path}")
        of_target = listing[named] if target == "mask" and named else None
        if of_target is not None and of_target.type not in ("images", "arrays"):
            foreign.append(f"line {row.line}: {of_target.path.name}")
        if of_target is not None and of_target.size < 0:
            absent.append(f"line {row.line}: {of_target.path}")
        found.setdefault(split, []).append(
            Entry(row.line, name, {**cells, **files}, of_target.path if of_target else named)
        )
    problems = audit.problems
    problems.add("ids that occur before", twice, "every row needs one of its own")
    problems.add(
        f"unknown splits (known are {', '.join(SPLITS)})",
        unknown,
        "rename them, or leave them empty",
    )
    problems.add(f"rows without a {target}", blank, "fill it in, or delete the rows")
    problems.add("rows without a file of any modality", empty, "name one, or delete the rows")
    problems.add("masks that are no image and no .npy", foreign, "convert them to PNG")
    for column, lines in in_words.items():
        problems.add(f"column {column}: words where a file is missing", lines, "leave such cells empty")
    readable = " ".join(end for ends in TYPES.values() for end in ends)
    for column, by_type in types.items():
        strange = by_type.pop("", [])
        remedy = f"convert them, or, if {column} is no modality, leave it out: data.columns=[...]"
        problems.add(f"column {column}: not one of {readable}", strange, remedy)
        if len(by_type) > 1:
            both = "; ".join(f"{name} {summarised(lines)}" for name, lines in by_type.items())
            problems.append(f"column {column} mixes {both}; give each a column of its own")
    audit.damaged.add(
        f"no such files below {listing.root}", absent, "mend the names, set data.root, or empty the cells"
    )
    return found


def cells_of(entries: Entries) -> dict[str, list[tuple[int, str]]]:
    """The lines and cells of the targets, by split."""
    return {split: [(e.line, str(e.target)) for e in rows] for split, rows in entries.items()}


def note_unseen(entries: Entries, target: str, problems: Problems) -> None:
    """Labels that no row of train has."""
    parts = TARGET_COLUMNS[target].parts
    known = {name for entry in entries["train"] for name in parts(str(entry.target))}
    unseen: dict[str, str] = {}
    for split, rows in entries.items():
        for entry in rows:
            for name in parts(str(entry.target)):
                if name not in known:
                    unseen.setdefault(name, f"{name} ({split}, line {entry.line})")
    problems.add(
        "labels that no row of train has",
        list(unseen.values()),
        "add rows to train, or delete these",
    )


def text_columns(table: Table, columns: Sequence[str], kinds: Mapping[str, str | None]) -> frozenset[str]:
    """The columns whose cells are sentences, not names of files: those of kind text, and where no kind is set those
    of which no cell ends like a file that can be read, and most have a blank."""

    def looks_so(column: str) -> bool:
        cells = [row.cells[column] for row in table.rows if row.cells[column]]
        if any(type_of(Path(cell.splitlines()[-1])) for cell in cells):
            return False
        return 2 * sum(" " in cell for cell in cells) > len(cells)

    return frozenset(c for c in columns if (kinds[c] or ("text" if looks_so(c) else "")) == "text")


def target_column(table: Table, chosen: str | None) -> str:
    """One of TARGETS. Raises: UserError: both, and none was chosen; or the chosen one is not there."""
    there = [name for name in TARGETS if name in table.header]
    if chosen is None and len(there) == 1:
        return there[0]
    if chosen is None:
        raise UserError(
            f"data.manifest={table.path} has {' and '.join(there)}; choose data.target={' or '.join(there)}"
        )
    if chosen not in there:
        raise UserError(f"data.target={chosen}, but {table.path} has {' and '.join(there)}; choose that")
    return chosen
