"""A run as reports know it: its scores, what it shares with comparable runs, where it comes from. Imports no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mmrobust.config.keys import NOT_IN_HASH
from mmrobust.config.overrides import key_of
from mmrobust.errors import UserError, printable
from mmrobust.evaluation.results import read_results
from mmrobust.reporting.commands import command_of, portable
from mmrobust.tasks.metric import Metric, metric_named

COMPARED = ("data_fingerprint", "split", "selection", "classes", "modalities")
CHOICES = ("method", "data", "encoder", "fusion", "experiment")
# Parts of a protocol that say how values were chosen, not what was measured.
TUNING = ("trials", "chosen")
# Overrides that the result records elsewhere, and those without effect on the numbers.
RECORDED = ("seed", "missing", "noise", "metric", *CHOICES)
NO_EFFECT = ("hydra", "missing.train", "missing.test", "noise.train", "noise.test", *NOT_IN_HASH)


@dataclass(frozen=True)
class Origin:
    """Where a run's numbers come from; what it does not record is None."""

    command: str  # of a fresh clone, without this machine's folders
    chosen: str  # by a search: `key=value` each
    encoder: str | None
    epochs: int | None
    peak: int | None  # the epoch with the best validation score, the tested one
    device: str | None
    commit: str | None


@dataclass(frozen=True)
class Run:
    path: Path  # of results.json, or of the store that it is read from
    seed: int
    config_hash: str
    table: dict[str, str]  # what all runs of a table share
    row: dict[str, str]  # what all runs of a row share
    scores: dict[str, float | None]  # of every combination, `average`, `worst`
    counts: dict[str, int | None]  # samples of every combination; None if it is not served
    seconds: float | None
    metric: Metric  # whose scores they are
    origin: Origin
    study: str | None = None  # of which it is a trial

    @property
    def place(self) -> Path:
        """Its folder, or the store that holds it."""
        return self.path.parent if self.path.name == "results.json" else self.path


def find_results(folder: Path) -> list[Path]:
    """All result files below a folder, and those that unfinished runs still owe.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the one that holds your runs (paths.outputs)")
    found = []
    for parent, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if name not in ("teachers", "evaluations", "debug"))
        if "results.json" in files or "overrides.txt" in files:
            found.append(Path(parent, "results.json"))
    return found


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
    counts = {name: int(c["n"]) if c else None for name, c in combinations}
    measured = [score for score in scores.values() if score is not None]
    if (
        not all(type(score) in (int, float) for score in [*measured, average[metric] or 0])
        or type(identity["seed"]) is not int
    ):
        raise TypeError("a score or the seed is no number")
    described = metric_named(metric, results)
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
    given = portable(identity["overrides"])
    row |= {"train masks": masks["train"]["hash"]} | recipe_of(given)
    row["recipe"] = str(identity["recipe_hash"])
    row["trials"] = str(protocol["trials"] or "none")
    study = (identity["study"] or {}).get("name")
    table["study"] = study or "none"
    for key in TUNING:
        table.pop(key, None)
    table = {key: value if isinstance(value, str) else json.dumps(value) for key, value in table.items()}
    row = {key: str(value) for key, value in row.items()}
    if study is not None and not isinstance(study, str):
        raise TypeError("the study's name is no text")
    cost = results.get("cost", {})
    seconds = cost.get("train_seconds")
    origin = Origin(
        command=command_of(given),
        chosen=" ".join(text for text in given if key_of(text) in protocol["chosen"]),
        encoder=_text(identity["encoders"]),
        epochs=_whole(cost.get("epochs")),
        peak=_whole(results.get("selection", {}).get("epoch")),
        device=_text(cost.get("device")),
        commit=_text(identity.get("git")),
    )
    return Run(
        path,
        identity["seed"],
        str(identity["config_hash"]),
        table,
        row,
        with_aggregates(scores, average[metric], described),
        counts,
        None if seconds is None else float(seconds),
        described,
        origin,
        study,
    )


def with_aggregates(
    scores: Mapping[str, float | None], average: float | None, metric: Metric
) -> dict[str, float | None]:
    """The scores of all combinations, then `average`, and `worst` as the run's own worst combination."""
    measured = [score for score in scores.values() if score is not None]
    worst = max if metric.direction == "min" else min
    return {**scores, "average": average, "worst": worst(measured, default=None)}


def averaged(scores: Mapping[str, float | None]) -> float | None:
    """The mean over the combinations that are measured, as `aggregates.average` is."""
    measured = [score for score in scores.values() if score is not None]
    return fmean(measured) if measured else None


def _words(protocol: Mapping[str, Any]) -> str:
    """A protocol in words, without the quirks that are off."""
    quirks = [f"as_released.{key}" for key, on in protocol.get("as_released", {}).items() if on]
    keys = {key: value for key, value in protocol.items() if key not in ("name", "as_released")}
    words = [f"{key}={f'{v:g}' if isinstance(v, float) else v}" for key, v in keys.items()]
    return " ".join([protocol["name"], *words, *quirks])


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def recipe_of(texts: Iterable[str]) -> dict[str, str]:
    """The overrides that change the numbers, but for those that the result records elsewhere; of a key given twice,
    the last."""
    pairs = dict(text.lstrip("+").partition("=")[::2] for text in texts)
    skipped = ("missing/", "noise/", "metrics.", *(f"{key}." for key in NO_EFFECT))
    return {k: v for k, v in sorted(pairs.items()) if k not in RECORDED and not f"{k}.".startswith(skipped)}
