"""`python -m mmrobust.report outputs`: methods × modality combinations, mean ± std over seeds. No torch.

A table holds comparable runs: same data, split, test masks, metric, selection, classes and modalities. A row
holds runs that differ in their seed alone. `worst` is each run's own worst combination, averaged like the rest.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mmrobust.config import NOT_IN_HASH
from mmrobust.errors import UserError
from mmrobust.evaluation.results import LOWER_IS_BETTER, read_results
from mmrobust.run import guarded

CHOICES = ("method", "data", "encoder", "fusion", "experiment")
# Overrides that the result records elsewhere, and those without effect on the numbers; callbacks may have one.
RECORDED = ("seed", "missing", *CHOICES)
NO_EFFECT = ("hydra", "missing.train", "missing.test", *(key for key in NOT_IN_HASH if key != "callbacks"))
IN_PERCENT = ("accuracy", "f1", "iou", "ece", "cer")  # how the names of metrics in [0, 1] end


@dataclass(frozen=True)
class Run:
    path: Path
    seed: int
    config_hash: str
    group: dict[str, str]  # what all runs of a table share
    row: dict[str, str]  # what all runs of a row share, with the training masks; rows are labelled by it
    train_masks: str
    scores: dict[str, float | None]  # of every combination, `average`, `worst`
    seconds: float | None


def find_results(folders: Iterable[Path]) -> list[Path]:
    """All result files below the folders, and those that unfinished runs still owe."""
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.exists():
            raise UserError(f"{folder} does not exist; give the folder of your runs (paths.outputs)")
        if folder.is_file():
            found.setdefault(folder.resolve(), folder)
        for parent, below, files in os.walk(folder):
            below[:] = sorted(name for name in below if name not in ("teachers", "evaluations"))
            if "results.json" in files or "overrides.txt" in files:
                found.setdefault(Path(parent).resolve() / "results.json", Path(parent, "results.json"))
    return list(found.values())


def read_run(path: Path, metric: str | None = None) -> Run:
    """Read a result; a UserError says why it cannot be reported. The default metric is the primary one."""
    if not path.exists():
        raise UserError(f"{path.parent} is not finished: it has no results.json yet")
    results = read_results(path)
    try:
        if results["status"] != "complete":
            raise UserError(f"{path} is not complete: its status is {results['status']!r}")
        return _run(path, results, metric or results["primary"]["metric"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is not a result of this framework: {error!r}") from error


def _run(path: Path, results: Mapping[str, Any], metric: str) -> Run:
    identity, protocol, average = results["identity"], results["protocol"], results["aggregates"]["average"]
    if metric not in average:
        raise UserError(f"{path} has no metric {metric!r}; it has {', '.join(average)}")
    rows = results["combinations"].items()
    scores = {name: row["metrics"][metric] if row and row["n"] else None for name, row in rows}
    worst = max if metric in LOWER_IS_BETTER else min
    measured = [score for score in scores.values() if score is not None]
    scores |= {"average": average[metric], "worst": worst(measured, default=None)}
    missing = protocol["missing"]
    group = {"data": identity["data"], "split": protocol["split"], "metric": metric} | protocol
    group["missing"] = missing["test"]["hash"]
    row = {key: str(identity[key]) for key in CHOICES if identity[key] is not None}
    for part in ("train", "test"):
        words = {key: str(value) for key, value in missing[part]["protocol"].items()}
        row[f"missing.{part}"] = " ".join([words.pop("name"), *(f"{k}={v}" for k, v in words.items())])
    return Run(
        path=path,
        seed=identity["seed"],
        config_hash=identity["config_hash"],
        group={key: value if isinstance(value, str) else json.dumps(value) for key, value in group.items()},
        row=row | _overrides(identity["overrides"]),
        train_masks=missing["train"]["hash"],
        scores=scores,
        seconds=(results.get("cost") or {}).get("train_seconds"),
    )


def _overrides(texts: Sequence[str]) -> dict[str, str]:
    """The overrides that change the numbers; of a key given twice, the last."""
    pairs = dict(text.lstrip("+").partition("=")[::2] for text in texts)
    skipped = tuple(f"{key}." for key in NO_EFFECT) + ("missing/",)
    return {k: v for k, v in sorted(pairs.items()) if k not in RECORDED and not f"{k}.".startswith(skipped)}


def tables(runs: Iterable[Run], notes: list[str]) -> list[tuple[str, list[list[str]]]]:
    """Heading and rows, the header first, of every group of comparable runs; `notes` gets what was left out."""
    groups: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(sorted(run.group.items())), []).append(run)
    alike: dict[str, list[list[Run]]] = {}
    for members in groups.values():
        alike.setdefault(_heading(members[0]), []).append(members)
    result = []
    for heading, several in sorted(alike.items()):
        differing = _varying([members[0].group for members in several])
        for members in several:
            parts = [heading, *(f"{key} {members[0].group.get(key, 'none')}" for key in differing)]
            result.append((" · ".join(parts), _rows(members, notes)))
    return result


def _heading(run: Run) -> str:
    group = run.group
    metric = group["metric"] + (" (%)" if group["metric"].endswith(IN_PERCENT) else "")
    return " · ".join([group["data"], group["split"], metric, f"selection {group['selection']}"])


def _varying(records: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys that do not have the same value in all records."""
    keys = dict.fromkeys(key for record in records for key in record)
    return [key for key in keys if len({record.get(key) for record in records}) > 1]


def _rows(runs: Sequence[Run], notes: list[str]) -> list[list[str]]:
    identities: dict[tuple[str, ...], dict[int, Run]] = {}
    shown = [key for key in _varying([run.row for run in runs]) if key != "method"]
    masks: dict[str, set[str]] = {}
    for run in runs:
        ...
    return []
