"""What the cells of a user's table say of a sample's target, task by task; masks are files, see `masks`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mmrobust.errors import Problems, UserError

BETWEEN_LABELS = "|"  # no separator of columns

Cells = Mapping[str, Sequence[tuple[int, str]]]  # split -> the line and the cell of every row


@dataclass(frozen=True)
class Target:
    """How one column of targets is read.

    Args:
        find: cells, what data.classes says, and a list of problems to add to -> the names of the outputs.
        encode: a cell and the names -> the target as plain data.
        parts: the names in a cell, which some row of train must have.
        dtype: of the targets.
        may_be_empty: whether an empty cell says something.
        by_class: whether a cell is a class, of which a share is held out.
    """

    find: Callable[[Cells, Sequence[str] | None, Problems], list[str]]
    encode: Callable[[str, Sequence[str]], Any]
    parts: Callable[[str], list[str]]
    dtype: torch.dtype
    may_be_empty: bool = False
    by_class: bool = False


def one_label(cell: str) -> list[str]:
    return [cell]


def several_labels(cell: str) -> list[str]:
    """`happy | loud`, in any order; none in an empty cell."""
    return [part.strip() for part in cell.split(BETWEEN_LABELS) if part.strip()]


def no_label(cell: str) -> list[str]:
    return []


def numbers_in(cell: str) -> list[float]:
    """`0.5`, or several apart by blanks. Raises: ValueError: anything else."""
    values = [float(part) for part in cell.split()]
    if not values or not all(map(math.isfinite, values)):
        raise ValueError
    return values


def find_classes(cells: Cells, given: Sequence[str] | None, problems: Problems) -> list[str]:
    """The labels, two or more. Adds to `problems`."""
    return _names(cells, given, problems, one_label, least=2, column="label")


def find_labels(cells: Cells, given: Sequence[str] | None, problems: Problems) -> list[str]:
    """The labels of which each row has any number. Adds to `problems`."""
    return _names(cells, given, problems, several_labels, least=1, column="labels")


def _names(
    cells: Cells,
    given: Sequence[str] | None,
    problems: Problems,
    parts: Callable[[str], list[str]],
    *,
    least: int,
    column: str,
) -> list[str]:
    """Whole numbers by size, else as words are sorted."""
    lines: dict[str, list[int]] = {}
    for rows in cells.values():
        for line, cell in rows:
            for name in parts(cell):
                lines.setdefault(name, []).append(line)
    lines.pop("", None)
    whole = all(label.lstrip("+-").isdecimal() for label in lines)
    classes = sorted(lines, key=(lambda label: (int(label), label)) if whole else None)
    if given is not None:
        strange = [f"line {lines[c][0]}: {c}" for c in classes if c not in given]
        problems.add("labels that data.classes has not", strange, "add them there, or delete the rows")
        classes = list(given)
    if len(classes) < least:
        expected = "two or more" if least == 2 else "one or more"
        problems.append(
            f"the column {column} holds {len(classes)} classes ({', '.join(classes)}); expected {expected}"
        )
    return classes


def find_numbers(cells: Cells, given: Sequence[str] | None, problems: Problems) -> list[str]:
    """What the numbers are called: `value`, value_1 and value_2, or as data.classes says. Adds to `problems`."""
    strange, counts = [], dict[int, int]()
    for rows in cells.values():
        for line, cell in rows:
            try:
                counts.setdefault(len(numbers_in(cell)), line)
            except ValueError:
                if cell:
                    strange.append(f"line {line}: {cell}")
    problems.add("values that are no numbers", strange, "write 0.5, or several apart by blanks")
    if len(counts) > 1:
        found = ", ".join(f"{count} in line {line}" for count, line in sorted(counts.items()))
        problems.append(f"the column value holds unequally many numbers: {found}; give every row as many")
    count = max(counts, default=1)
    if given is not None and len(given) != count:
        problems.append(f"data.classes names {len(given)} numbers, the column value holds {count}")
    if given is not None:
        return list(given)
    return ["value"] if count == 1 else [f"value_{i + 1}" for i in range(count)]


TARGET_COLUMNS = {
    "label": Target(
        find_classes, lambda cell, names: names.index(cell), one_label, torch.int64, by_class=True
    ),
    "labels": Target(
        find_labels,
        lambda cell, names: [int(name in several_labels(cell)) for name in names],
        several_labels,
        torch.int64,
        may_be_empty=True,
    ),
    "value": Target(find_numbers, lambda cell, names: numbers_in(cell), no_label, torch.float32),
}


def names_of(target: str, cells: Cells, given: Sequence[str] | int | None, problems: Problems) -> list[str]:
    """The names of the outputs. Adds to `problems`.

    Raises:
        UserError: `given`, data.classes, is a number, as it can be for masks alone.
    """
    if isinstance(given, int):
        raise UserError(f"data.classes={given} is for masks; name the labels: data.classes=[cat, dog]")
    return TARGET_COLUMNS[target].find(cells, given, problems)
