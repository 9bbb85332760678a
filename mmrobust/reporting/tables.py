"""Runs side by side: which are comparable, which are seeds of one recipe, mean ± std. Imports no torch.

A table holds comparable runs: same data, split, test masks and noise, metric, selection, classes and modalities. A row
holds runs that differ in their seed alone. `worst` is each run's own worst combination, averaged like the rest.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mmrobust.config.keys import NOT_IN_HASH
from mmrobust.errors import UserError, printable
from mmrobust.evaluation.results import MANY, read_results
from mmrobust.reporting.published import Published, beside, recipe_status
from mmrobust.reporting.run_table import sample_in_words
from mmrobust.tasks.metric import Metric, metric_named

COMPARED = ("data_fingerprint", "split", "selection", "classes", "modalities")
CHOICES = ("method", "data", "encoder", "fusion", "experiment")
# Overrides that the result records elsewhere, and those without effect on the numbers.
RECORDED = ("seed", "missing", "noise", "metric", *CHOICES)
NO_EFFECT = ("hydra", "missing.train", "missing.test", "noise.train", "noise.test", *NOT_IN_HASH)
Tables = list[tuple[str, list[list[str]]]]  # headings and rows, the header first


@dataclass(frozen=True)
class Run:
    path: Path
    seed: int
    config_hash: str
    table: dict[str, str]  # what all runs of a table share
    row: dict[str, str]  # what all runs of a row share
    scores: dict[str, float | None]  # of every combination, `average`, `worst`
    seconds: float | None
    metric: Metric  # whose scores they are
    study: str | None = None  # of which it is a trial


def read_run(path: Path, metric: str | None = None) -> Run:
    """Read a result; a UserError says why it cannot be reported. The default metric is the primary one."""
    if not path.exists():
        raise UserError(f"{path.parent} is not finished: it has no results.json yet")
    results = cleaned(read_results(path))
    try:
        if results["status"] != "complete":
            raise UserError(f"{path} is not complete: its status is {results['status']!r}")
        return _run(path, results, metric or results["primary"]["metric"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is not a result of this framework: {error!r}") from error


def cleaned(node: Any) -> Any:
    """What a file says, without line breaks and control characters in its texts: it may be somebody else's."""
    if isinstance(node, dict):
        return {cleaned(key): cleaned(child) for key, child in node.items()}
    if isinstance(node, list):
        return [cleaned(child) for child in node]
    return " ".join(printable(node).split()) if isinstance(node, str) else node


def _run(path: Path, results: Mapping[str, Any], metric: str) -> Run:
    identity, protocol, average = results["identity"], results["protocol"], results["aggregates"]["average"]
    if metric not in average:
        raise UserError(f"{path} has no metric {metric!r}; it has {', '.join(average)}")
    combinations = results["combinations"].items()
    scores = {name: c["metrics"][metric] if c and c["n"] else None for name, c in combinations}
    measured = [score for score in scores.values() if score is not None]
    if (
        not all(type(score) in (int, float) for score in [*measured, average[metric] or 0])
        or type(identity["seed"]) is not int
    ):
        raise TypeError("a score or the seed is no number")
    described = metric_named(metric, results)
    worst = max if described.direction == "min" else min
    scores |= {"average": average[metric], "worst": worst(measured, default=None)}
    masks = protocol["missing"]
    table = {key: protocol[key] for key in (*COMPARED, *protocol)}
    table |= {"data": identity["data"], "metric": metric, "missing": masks["test"]["hash"]}
    noise = protocol["noise"]
    table["noise"] = _words(noise["test"]["protocol"])
    row = {key: str(identity[key]) for key in CHOICES if identity[key] is not None}
    if identity["unverified"]:  # its rules rest on memory: see the method's docstring
        row["method"] += " (unverified)"
    for part in ("train", "test"):
        row[f"missing.{part}"] = _words(masks[part]["protocol"])
    row["noise.train"] = _words(noise["train"]["protocol"])
    row |= {"train masks": masks["train"]["hash"]} | _overrides(identity["overrides"])
    row["recipe"] = str(identity["recipe_hash"])
    row["trials"] = str(protocol["trials"] or "none")
    study = (identity["study"] or {}).get("name")
    table["study"] = study or "none"
    table.pop("trials", None)
    table = {key: value if isinstance(value, str) else json.dumps(value) for key, value in table.items()}
    row = {key: str(value) for key, value in row.items()}
    seconds = results.get("cost", {}).get("train_seconds")
    if study is not None and not isinstance(study, str):
        raise TypeError("the study's name is no text")
    seconds = None if seconds is None else float(seconds)
    return Run(
        path, identity["seed"], str(identity["config_hash"]), table, row, scores, seconds, described, study
    )


def _words(protocol: Mapping[str, Any]) -> str:
    """A protocol in words, without the quirks that are off."""
    quirks = [f"as_released.{key}" for key, on in protocol.get("as_released", {}).items() if on]
    keys = {key: value for key, value in protocol.items() if key not in ("name", "as_released")}
    words = [f"{key}={f'{v:g}' if isinstance(v, float) else v}" for key, v in keys.items()]
    return " ".join([protocol["name"], *words, *quirks])


def _overrides(texts: Iterable[str]) -> dict[str, str]:
    """The overrides that change the numbers; of a key given twice, the last."""
    pairs = dict(text.lstrip("+").partition("=")[::2] for text in texts)
    skipped = ("missing/", "noise/", "metrics.", *(f"{key}." for key in NO_EFFECT))
    return {k: v for k, v in sorted(pairs.items()) if k not in RECORDED and not f"{k}.".startswith(skipped)}


def make_tables(runs: Iterable[Run], notes: list[str]) -> Tables:
    """A table for every group of comparable runs; what is left out goes to `notes`."""
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
        differing = varying([group[0].table for group in groups.values()])
        for _, group in sorted(groups.items()):
            t = group[0].table | {"missing": f"test masks {group[0].table['missing']}"}
            names = [t[k] if k == "missing" else f"{k} {t.get(k, 'none')}" for k in differing]
            header, *body = _rows(group, notes)
            methods = {run.row["method"].partition(" ")[0] for run in group if "method" in run.row}
            others, apart = beside(group[0].table, sorted(methods))
            notes += [*apart, *_recipes(group), *_budgets(group)]
            tables.append((" · ".join([heading, *names]), [header, *body, *_published(others, header)]))
    return tables


def _recipes(runs: Iterable[Run]) -> list[str]:
    """What has become so far of the published settings in a table."""
    names = sorted({run.row.get("experiment", "") for run in runs} & {*recipe_status()})
    return [f"experiment={n}: {recipe_status()[n]['status']}: {recipe_status()[n]['why']}" for n in names]


def _budgets(runs: Iterable[Run]) -> list[str]:
    """That some rows of a table were tuned more than others."""
    methods: dict[str, dict[str, None]] = {}
    for run in runs:
        methods.setdefault(run.row["trials"], {})[run.row.get("method", "–")] = None
    if len(methods) < 2:
        return []
    told = "; ".join(f"{', '.join(names)}: {trials}" for trials, names in methods.items())
    return [f"unequal budgets: trials on validation that chose the hyper-parameters: {told}; a comparison is fair "
            "with as many for each (sweep=fair)"]  # fmt: skip


def without_trials(runs: Sequence[Run], notes: list[str]) -> list[Run]:
    """The runs that are no trials of a study, if there are any; else the trials, in tables of their own."""
    others = [run for run in runs if run.study is None]
    studies = sorted({run.study for run in runs if run.study is not None})
    if studies and others:
        count = len(runs) - len(others)
        notes.append(f"left out {count} trials of {', '.join(studies)}; --trials shows them")
    return others or list(runs)


def _published(rows: Sequence[Published], header: Sequence[str]) -> list[list[str]]:
    """Lines for numbers of others, which say where they come from instead of seeds and seconds."""
    return [
        [
            f"published: {row.method} ({row.trust})",
            *(f"{row.values[name]:.1f}" if name in row.values else "–" for name in header[1:-2]),
            "–",
            "–",
        ]
        for row in rows
    ]


def varying(records: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys that do not have the same value in all records."""
    keys = dict.fromkeys(key for record in records for key in record)
    return [key for key in keys if len({record.get(key) for record in records}) > 1]


def _rows(runs: Sequence[Run], notes: list[str]) -> list[list[str]]:
    shown = [key for key in varying([run.row for run in runs]) if key != "method"]
    if "train masks" in shown and {"missing.train", "missing.seed"} & {*shown}:
        shown.remove("train masks")  # a hash only where no words tell the rows apart
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
            notes.append(f"{labels[row]}: seed {run.seed} again; left out the older {older.path.parent}{why}")
        rows[row][run.seed] = run
    names = list(runs[0].scores)
    if (hidden := len(names) - 2 - MANY) > 0:
        full = names[-3]
        names = [name for name in names if "+" not in name or name == full]
        hidden += MANY + 2 - len(names)
        notes.append(f"{hidden} more combinations are in results.json; average and worst are over all")
    scale, digits = (100, 1) if runs[0].metric.percent else (1, 3)
    body = []
    for row, seeds in rows.items():
        cells = [_cell([run.scores.get(name) for run in seeds.values()], scale, digits) for name in names]
        seconds = [run.seconds for run in seeds.values() if run.seconds is not None]
        body.append([labels[row], *cells, str(len(seeds)), f"{fmean(seconds):.1f}" if seconds else "–"])
    served = [len(names) - 2 - line[1 : len(names) - 1].count("–") for line in body]
    for line, count in zip(body, served, strict=True):
        if count < max(served):  # say that its average and worst are over fewer
            line[0] += f" ({count} of {max(served)} combinations)"
    return [["method", *names, "seeds", "train s"], *sorted(body)]


def _cell(values: Sequence[float | None], scale: float, digits: int) -> str:
    numbers = [value * scale for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return "–"
    spread = f" ± {stdev(numbers):.{digits}f}" if len(numbers) > 1 else ""
    return f"{fmean(numbers):.{digits}f}{spread}"
