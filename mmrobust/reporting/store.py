"""A store of results: a table of numbers that lies in the repository, each with the command that makes it again.

A CSV file with a row for every run, metric and combination. What is read from it are runs again, as from their
folders. Imports no torch.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrobust.errors import UserError, summarised
from mmrobust.files import write_text
from mmrobust.reporting.commands import check_command, command_of, overrides_of
from mmrobust.reporting.runs import Run, cleaned
from mmrobust.reporting.store_rows import COLUMNS, Row, rows_of, run_of

OF_COMBINATION = ("combination", "value", "n")


@dataclass(frozen=True)
class Stored:
    """The content of a store.

    Args:
        runs: a run for each pair of run and metric, as its rows lie there.
        rows: the rows of each.
        problems: a line for each run, or row, that cannot be read.
    """

    runs: list[Run]
    rows: list[list[Row]]
    problems: list[str]


def read_store(path: Path) -> Stored:
    """Read every run of a store that can be read.

    Args:
        path: a CSV file.

    Raises:
        UserError: it cannot be opened, or is no store.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    wrong: dict[tuple[str, str], str] = {}
    stored = Stored([], [], [])
    for line, row in _rows(path, stored.problems):
        key = row["run"], row["metric"]
        others = groups.setdefault(key, [])
        if what := _wrong(row, others):
            wrong.setdefault(key, f"line {line}: {what}")
        others.append(row)
    for key, rows in groups.items():
        try:
            if key in wrong:
                raise ValueError(wrong[key])
            run = run_of(path, rows)
        except (ValueError, TypeError, KeyError, UserError) as error:
            stored.problems.append(f"{path}: run {key[0]} is left out: {error}")
        else:
            stored.runs.append(run)
            stored.rows.append(rows)
    return stored


def of_metric(runs: Iterable[Run], metric: str | None) -> list[Run]:
    """Those of one metric; by default the one that is stored first of each run."""
    first: dict[str, str] = {}
    return [
        run
        for run in runs
        if run.metric.name == (metric or first.setdefault(run.config_hash, run.metric.name))
    ]


def _rows(path: Path, problems: list[str]) -> Iterable[tuple[int, Row]]:
    """Raises: UserError: the file cannot be read, or its columns are others."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            lacking = [name for name in COLUMNS if name not in header]
            further = [name for name in header if name not in COLUMNS]
            what = [f"it lacks {summarised(lacking)}"] if lacking else []
            what += [f"it has besides {summarised(further)}"] if further else []
            raise UserError(
                f"{path} is no store of results: {' and '.join(what) or 'its columns are in another order'}; report a folder "
                "of runs, or a file that --store wrote"
            )
        for cells in reader:
            if len(cells) == len(COLUMNS):
                yield reader.line_num, dict(zip(COLUMNS, cleaned(cells), strict=True))
            elif cells:
                problems.append(
                    f"{path}, line {reader.line_num}: {len(cells)} of {len(COLUMNS)} columns; the row is left out"
                )
    except csv.Error as error:
        problems.append(f"{path}, line {reader.line_num}: {error}; nothing is read from there on")


def _wrong(row: Row, others: Sequence[Row]) -> str | None:
    """What a row says that cannot be, beside the rows of the same run."""
    if any(other["combination"] == row["combination"] for other in others):
        return f"{row['combination']} comes a second time"
    if row["value"]:
        try:
            if not math.isfinite(float(row["value"])):
                return f"the value {row['value']} is no score"
        except ValueError:
            return f"the value {row['value']!r} is no number"
    if others and (differing := [k for k in COLUMNS if k not in OF_COMBINATION and row[k] != others[0][k]]):
        return f"{differing[0]} is {row[differing[0]]!r}, in the run's other rows {others[0][differing[0]]!r}"
    return None


def add_to_store(path: Path, runs: Sequence[Run]) -> list[str]:
    """Merge runs into a store: rows are added, those of the same run and metric replaced, none is lost.

    Args:
        path: a CSV file, which need not exist.
        runs: of which those with the same configuration, or the same command, are one; the newest counts.

    Returns:
        What was done, and which runs are not stored because their command does not compose.

    Raises:
        UserError: no run can be stored, or something in the file cannot be read.
    """
    before = read_store(path) if path.exists() else Stored([], [], [])
    if before.problems:
        raise UserError(
            f"nothing is stored, so that nothing is lost: {'; '.join(before.problems)}. Mend the file, or take it from "
            "the repository again"
        )
    composing, notes = _composing(runs, before.runs)
    if not composing:
        raise UserError("; ".join([*notes, f"there is no run to store in {path}"]))
    stored = {(rows[0]["run"], rows[0]["metric"]): rows for rows in before.rows}
    replaced = 0
    for run in sorted(composing, key=lambda run: run.path.stat().st_mtime_ns):
        rows, key = rows_of(run), (run.config_hash, run.metric.name)
        for other in [k for k, r in stored.items() if k[1] == key[1] and _same(r[0], rows[0])]:
            replaced += stored[other] != rows
            if other != key:
                del stored[other]
        stored[key] = rows
    ordered = sorted(stored.values(), key=_order)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for rows in ordered for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text.getvalue())
    except OSError as error:
        raise UserError(f"--store {path} cannot be written: {error}") from error
    return [*notes, f"{path}: {len(stored)} runs, of which {replaced} replaced others"]


def _composing(runs: Iterable[Run], stored: Iterable[Run]) -> tuple[list[Run], list[str]]:
    """The runs whose commands compose, and a line for each other command; looked at once for all seeds, and not again
    if it is stored."""
    wrong = {tuple(_without_seed(run.origin.command)): "" for run in stored}
    kept = []
    for run in runs:
        given = tuple(_without_seed(run.origin.command))
        if given not in wrong:
            try:
                check_command(command_of(given))
                wrong[given] = ""
            except UserError as error:
                wrong[given] = f"not stored: {error}"
        if not wrong[given]:
            kept.append(run)
    return kept, [line for line in wrong.values() if line]


def _without_seed(command: str) -> list[str]:
    return [text for text in overrides_of(command) if not text.startswith("seed=")]


def _same(row: Row, other: Row) -> bool:
    return row["run"] == other["run"] or row["command"] == other["command"]


def _order(rows: Sequence[Row]) -> tuple[Any, ...]:
    """Where the rows of a run lie: seeds of one setting side by side."""
    row = rows[0]
    return row["data"], row["method"], _without_seed(row["command"]), int(row["seed"]), row["run"]
