"""Lists of samples: text files with a row for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from mmrobust.errors import Problems

T = TypeVar("T")


def read_lines(path: Path) -> list[str]:
    """Of UTF-8 with or without a byte-order mark; what is no UTF-8 is replaced."""
    return path.read_text("utf-8-sig", errors="replace").splitlines()


def read_list(
    path: Path,
    parse: Callable[[str], tuple[str, T] | None],
    problems: Problems,
    *,
    lacking: str,
    expected: str,
    mend: str = "mend or delete them",
    samples: str = "clips",
) -> dict[str, T]:
    """What the rows (name, value) of a list say, by name. Adds to `problems`; `lacking`: what to do if there is no such
    file, for the rest see `parsed`."""
    if not path.is_file():
        problems.append(f"no {path}; {lacking}")
        return {}
    rows = parsed(path, read_lines(path), parse, problems, expected=expected, mend=mend, samples=samples)
    return unique(path, rows, problems)


def parsed(
    source: Path,
    lines: Iterable[str],
    parse: Callable[[str], T | None],
    problems: Problems,
    *,
    expected: str,
    mend: str = "mend or delete them",
    samples: str = "clips",
) -> dict[int, T]:
    """What the lines of a list say, by their numbers, from 1; blank ones say nothing. Adds to `problems`.

    Args:
        source: the list.
        lines: its lines.
        parse: a line -> what it says, None for a header; raises ValueError if it cannot be understood.
        problems: what is wrong with the list.
        expected: what a row is like.
        mend: what to do with other rows.
        samples: what they are called.
    """
    found: dict[int, T] = {}
    wrong: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = parse(line) if line.strip() else None
        except ValueError:
            wrong.append(f"line {number}: {line}")
            continue
        if row is not None:
            found[number] = row
    problems.add(f"{source}: not {expected}", wrong, mend)
    if not found and not wrong:
        problems.append(f"{source} names no {samples}; expected rows {expected}")
    return found


def unique(source: Path, rows: Mapping[int, tuple[str, T]], problems: Problems) -> dict[str, T]:
    """The rows (name, value) by their names. Adds to `problems` what a list names twice."""
    found: dict[str, T] = {}
    twice: list[str] = []
    for number, (name, value) in rows.items():
        if name in found:
            twice.append(f"line {number}: {name}")
        found.setdefault(name, value)
    problems.add(f"{source}: listed before", twice, "keep one row of each")
    return found
