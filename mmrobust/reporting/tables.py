"""Tables of comparable runs, with mean ± std over the seeds of each recipe. Imports no torch.

The runs of a table share data, split, test masks and noise, metric, selection, classes and modalities. The runs of a
row differ only in their seed. `worst` is each run's own worst combination, averaged over seeds like all columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from mmrobust.evaluation.results import MANY
from mmrobust.reporting.published import Published, beside, recipe_status
from mmrobust.reporting.run_table import sample_in_words
from mmrobust.reporting.runs import Run

# The report's words for the properties that separate runs into tables.
IN_WORDS = {
    "data_fingerprint": "samples (fingerprint)",
    "data_split": "data split",
    "missing": "test masks",
    "noise": "test noise",
    "skipped": "skipped samples",
}


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text and the numbers behind it.

    Args:
        text: the text as displayed.
        mean, std: statistics over seeds, in the table's unit, not rounded; mean is None if the cell is no measurement,
            std also if there is one seed only.
        rank: 1 for the best of the column, 2 for the second, else 0.
    """

    text: str
    mean: float | None = None
    std: float | None = None
    rank: int = 0


@dataclass(frozen=True)
class Table:
    heading: str
    header: list[str]
    # The first cell of each line is its label.
    body: list[list[Cell]]


def make_tables(runs: Iterable[Run], notes: list[str]) -> list[Table]:
    """Make a table for every group of comparable runs; append to `notes` what was left out and what differs."""
    alike: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        t = run.table
        words = ["%"] * run.metric.percent + ["lower is better"] * (run.metric.direction == "min")
        unit = f" ({', '.join(words)})" if words else ""
        heading = f"{t['data']} · {t['split']} · {t['metric']}{unit} · selection {t['selection']}"
        if "sample" in t:
            heading += f" · {sample_in_words({'sample': json.loads(t['sample'])})}"
        alike.setdefault(heading, {}).setdefault(json.dumps(t, sort_keys=True), []).append(run)
    tables = []
    for heading, groups in sorted(alike.items()):
        shared = [_in_words(group[0]) for _, group in sorted(groups.items())]
        differing = varying(shared)
        notes += _apart(heading, differing, shared)
        for (_, group), t in zip(sorted(groups.items()), shared, strict=True):
            names = [f"{key} {t.get(key, 'none')}" for key in differing]
            header, body = _rows(group, notes)
            others, apart = beside(group)
            notes += [*apart, *_recipes(group), *_budgets(group)]
            tables.append(Table(" · ".join([heading, *names]), header, [*body, *_published(others, header)]))
    return tables


def _in_words(run: Run) -> dict[str, str]:
    """The properties that all runs of the run's table share, under the report's words."""
    masks = f"{run.row['missing.test']} ({run.table['missing']})"
    return {IN_WORDS.get(key, key): value for key, value in (run.table | {"missing": masks}).items()}


def _apart(heading: str, differing: Sequence[str], shared: Sequence[Mapping[str, str]]) -> list[str]:
    """A note that says why runs of the same data and metric are in separate tables."""
    if not differing:
        return []
    told = "; ".join(
        f"{key}: {', '.join(dict.fromkeys(t.get(key, 'none') for t in shared))}" for key in differing
    )
    return [
        f"{heading}: not comparable, so in {len(shared)} tables and never averaged, are runs with other {told}"
    ]


def _recipes(runs: Iterable[Run]) -> list[str]:
    """Notes on the status of the published recipes in a table."""
    names = sorted({run.row.get("experiment", "") for run in runs} & {*recipe_status()})
    return [f"experiment={n}: {recipe_status()[n]['status']}: {recipe_status()[n]['why']}" for n in names]


def _budgets(runs: Iterable[Run]) -> list[str]:
    """A note if some rows of a table were tuned with more trials than others."""
    methods: dict[str, dict[str, None]] = {}
    for run in runs:
        methods.setdefault(run.row["trials"], {})[run.row.get("method", "–")] = None
    if len(methods) < 2:
        return []
    told = "; ".join(f"{', '.join(names)}: {trials}" for trials, names in methods.items())
    return [f"unequal budgets: trials on validation that chose the hyper-parameters: {told}; a comparison is fair "
            "with as many for each (sweep=fair)"]  # fmt: skip


def without_trials(runs: Sequence[Run], notes: list[str]) -> list[Run]:
    """Drop the trials of studies, unless all runs are trials."""
    others = [run for run in runs if run.study is None]
    studies = sorted({run.study for run in runs if run.study is not None})
    if studies and others:
        count = len(runs) - len(others)
        notes.append(f"left out {count} trials of {', '.join(studies)}; --trials shows them")
    return others or list(runs)


def _published(rows: Sequence[Published], header: Sequence[str]) -> list[list[Cell]]:
    """Lines with published numbers, labelled by their source; they have no seeds and seconds."""
    return [
        [
            Cell(f"published: {row.method} ({row.trust})"),
            *(_number(row.values.get(name)) for name in header[1:-2]),
            Cell("–"),
            Cell("–"),
        ]
        for row in rows
    ]


def _number(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(f"{value:.1f}", value)


def varying(records: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys that do not have the same value in all records."""
    keys = dict.fromkeys(key for record in records for key in record)
    return [key for key in keys if len({record.get(key) for record in records}) > 1]


def _rows(runs: Sequence[Run], notes: list[str]) -> tuple[list[str], list[list[Cell]]]:
    """The header and the lines of a table, the best average first."""
    shown = [key for key in varying([run.row for run in runs]) if key != "method"]
    if "train masks" in shown and {"missing.train", "missing.seed"} & {*shown}:
        # The hash of the masks is shown only if the settings do not distinguish the rows.
        shown.remove("train masks")
    if "recipe" in shown and (len(shown) > 1 or len({run.row.get("method") for run in runs}) > 1):
        shown.remove("recipe")
    rows: dict[str, dict[int, Run]] = {}
    labels: dict[str, str] = {}
    for run in sorted(runs, key=lambda run: run.path.stat().st_mtime_ns):
        row = json.dumps(run.row, sort_keys=True)
        labels[row] = ", ".join(
            [run.row.get("method", "–"), *(f"{k}={run.row[k]}" for k in shown if k in run.row)]
        )
        older = rows.setdefault(row, {}).pop(run.seed, None)
        if older:
            why = "" if older.config_hash == run.config_hash else " (its configuration hash differs)"
            notes.append(f"{labels[row]}: seed {run.seed} again; left out the older {older.place}{why}")
        rows[row][run.seed] = run
    names = list(runs[0].scores)
    if (hidden := len(names) - 2 - MANY) > 0:
        full = names[-3]
        names = [name for name in names if "+" not in name or name == full]
        hidden += MANY + 2 - len(names)
        notes.append(f"{hidden} more combinations are in results.json; average and worst are over all")
    percent = runs[0].metric.percent
    body = []
    for row, seeds in rows.items():
        cells = [cell([run.scores.get(name) for run in seeds.values()], percent) for name in names]
        seconds = [run.seconds for run in seeds.values() if run.seconds is not None]
        spent = Cell(f"{fmean(seconds):.1f}", fmean(seconds)) if seconds else Cell("–")
        body.append([Cell(labels[row]), *cells, Cell(str(len(seeds)), len(seeds)), spent])
    least = runs[0].metric.direction == "min"
    average = 1 + names.index("average")
    body.sort(key=lambda line: (line[average].mean is None, _goodness(line[average], least), line[0].text))
    served = [sum(c.mean is not None for c in line[1 : len(names) - 1]) for line in body]
    whole = [count == max(served) for count in served]
    for i, name in enumerate(names, start=1):
        fair = whole if name in ("average", "worst") else [True] * len(body)
        rank([line for line, yes in zip(body, fair, strict=True) if yes], i, least)
    for line, count in zip(body, served, strict=True):
        # Average and worst over fewer combinations do not compare with the other lines, so the label says so.
        if count < max(served):
            label = f"{line[0].text} ({count} of {max(served)} combinations)"
            line[0] = replace(line[0], text=label)
    return ["method", *names, "seeds", "train s"], body


def rank(lines: Sequence[list[Cell]], column: int, least: bool) -> None:
    """Mark the best and the second best of a column. Cells with equal text, i.e. after rounding, share a rank."""
    means: dict[str, float] = {}
    for line in lines:
        if (mean := line[column].mean) is not None:
            means.setdefault(line[column].text.partition(" ")[0], mean)
    if len(means) < 2:
        return
    order = sorted(means, key=lambda text: means[text] if least else -means[text])
    for line in lines:
        text = line[column].text.partition(" ")[0]
        if text in order[:2]:
            line[column] = replace(line[column], rank=1 + order.index(text))


def _goodness(cell: Cell, least: bool) -> float:
    """A sort key; smaller is better."""
    return 0.0 if cell.mean is None else cell.mean if least else -cell.mean


def cell(scores: Sequence[float | None], percent: bool) -> Cell:
    """Format mean ± standard deviation over runs; a dash if one of the runs has no score."""
    numbers = [score * (100 if percent else 1) for score in scores if score is not None]
    if not numbers or len(numbers) < len(scores):
        return Cell("–")
    digits, std = 1 if percent else 3, stdev(numbers) if len(numbers) > 1 else None
    spread = "" if std is None else f" ± {std:.{digits}f}"
    return Cell(f"{fmean(numbers):.{digits}f}{spread}", fmean(numbers), std)
