"""The rows of one run in a store of results, and the run that rows are. Imports no torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmrobust.reporting.commands import overrides_of, portable
from mmrobust.reporting.runs import Origin, Run, averaged, recipe_of, with_aggregates
from mmrobust.tasks.metric import METRICS, Metric, metric_named

COLUMNS = (
    *("method", "data", "encoder", "seed", "combination", "metric", "value", "n"),
    *("trials", "chosen", "epochs", "peak", "seconds", "device", "commit", "command"),
    # what runs must share to be compared, or to be seeds of one row: words of a shell, key=value
    *("protocol", "recipe", "run"),
)
Row = dict[str, str]


def run_of(path: Path, rows: Sequence[Row]) -> Run:
    """The run whose rows these are; ValueError, TypeError, KeyError and UserError say what is wrong."""
    row = rows[0]
    shared, recipe = _pairs(row["protocol"]), _pairs(row["recipe"])
    modalities = json.loads(shared["modalities"])
    if len(rows) != 2 ** len(modalities) - 1:
        raise ValueError(
            f"it has {len(rows)} combinations of {', '.join(modalities)}; is the file cut short?"
        )
    metric = _metric(row["metric"], shared)
    counts = {r["combination"]: int(r["n"]) if r["n"] else None for r in rows}
    scores = {r["combination"]: float(r["value"]) if r["value"] else None for r in rows}
    command = row["command"]
    return Run(
        path=path,
        seed=int(row["seed"]),
        config_hash=row["run"],
        table=shared | {"data": row["data"], "metric": row["metric"], "study": "none"},
        row={"method": row["method"], "data": row["data"], **recipe}
        | recipe_of(portable(overrides_of(command)))
        | {"trials": row["trials"] or "none"},
        scores=with_aggregates(scores, averaged(scores), metric),
        counts=counts,
        seconds=float(row["seconds"]) if row["seconds"] else None,
        metric=metric,
        origin=Origin(
            command=command,
            chosen=row["chosen"],
            encoder=row["encoder"] or None,
            epochs=int(row["epochs"]) if row["epochs"] else None,
            peak=int(row["peak"]) if row["peak"] else None,
            device=row["device"] or None,
            commit=row["commit"] or None,
        ),
    )


def _metric(name: str, shared: dict[str, str]) -> Metric:
    """The metric of a run; one that its configuration added is described by the protocol, from which that is taken."""
    told = {key: shared.pop(f"metric.{key}", None) for key in ("direction", "percent", "label")}
    if told["direction"] is None:
        return metric_named(name)
    if told["direction"] not in ("min", "max"):
        raise ValueError(f"metric.direction={told['direction']} is neither min nor max")
    return Metric(name, told["direction"], told["percent"] == "true", told["label"] or name)  # type: ignore[arg-type]


def rows_of(run: Run) -> list[Row]:
    described = {f"metric.{key}": json.dumps(value).strip('"') for key, value in run.metric.to_dict().items()}
    shared = {key: value for key, value in run.table.items() if key not in ("data", "metric", "study")}
    if run.metric.name not in METRICS:
        shared |= described
    given = recipe_of(portable(overrides_of(run.origin.command)))
    recipe = {k: v for k, v in run.row.items() if k not in ("method", "data", "trials", *given)}
    common = {
        "method": run.row["method"],
        "data": run.row["data"],
        "encoder": run.origin.encoder,
        "seed": run.seed,
        "metric": run.metric.name,
        "trials": None if run.row["trials"] == "none" else run.row["trials"],
        "chosen": run.origin.chosen,
        "epochs": run.origin.epochs,
        "peak": run.origin.peak,
        "seconds": run.seconds,
        "device": run.origin.device,
        "commit": run.origin.commit,
        "command": run.origin.command,
        "protocol": _joined(shared),
        "recipe": _joined(recipe),
        "run": run.config_hash,
    }
    rows = []
    for name, count in run.counts.items():
        of_combination = {"combination": name, "value": run.scores[name], "n": count}
        values = common | of_combination
        rows.append({key: "" if values[key] is None else str(values[key]) for key in COLUMNS})
    return rows


def _joined(pairs: Mapping[str, str]) -> str:
    return shlex.join(f"{key}={value}" for key, value in pairs.items())


def _pairs(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in shlex.split(text))}
