"""Checks that a result's numbers follow from its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrobust.config.identity import load_run_config
from mmrobust.errors import UserError
from mmrobust.evaluation.results import (
    read_predictions,
    read_results,
)
from mmrobust.files import check_inside

if TYPE_CHECKING:
    from mmrobust.evaluation.added_metrics import Added
    from mmrobust.tasks.base import Task


def verify(folder: Path) -> int:
    """Recompute every number of a result from its predictions; return 0 if all agree, else 1.

    Raises:
        UserError: one of the two files is damaged.
    """
    try:
        return _verify(folder)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, MemoryError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{folder}/predictions.npz does not belong to results.json beside it: {reason[:300]}; evaluate the run again"
        ) from error


def _verify(folder: Path) -> int:
    from mmrobust.data.spec import DataSpec, Modality
    from mmrobust.evaluation.combinations import from_predictions
    from mmrobust.tasks.registry import build_task

    check_inside(folder)
    stored = read_results(folder)
    if stored["status"] != "complete":
        raise UserError(f"{folder} has no result to verify: it is {stored['status']}")
    task_name, classes = stored["identity"]["task"], stored["protocol"]["classes"]
    # Recomputing metrics needs the modalities' names only, so their sizes are arbitrary.
    modalities = {m: Modality("image", (1, 1, 1)) for m in stored["protocol"]["modalities"]}
    metrics, primary = tuple(stored["protocol"].get("metrics", ())), stored["primary"]["metric"]
    task = build_task(DataSpec(task_name, classes, 0, modalities, metrics=metrics, primary=primary))
    added = _added_metrics(folder, stored, task)
    again = from_predictions(read_predictions(folder / "predictions.npz"), task, added)
    theirs = _flat({"combinations": stored["combinations"], "aggregates": stored["aggregates"]})
    left_out = sorted(set(stored.get("metrics", {})) - set(added))
    theirs = {key: value for key, value in theirs.items() if key.rpartition("/")[2] not in left_out}
    if left_out:
        print(f"{folder}: {', '.join(left_out)} cannot be recomputed from what is kept")
    ours = _flat({"combinations": again.combinations, "aggregates": again.aggregates})
    wrong = {k: (theirs.get(k), ours.get(k)) for k in theirs | ours if not _same(theirs.get(k), ours.get(k))}
    for key, (a, b) in wrong.items():
        print(f"{key}: stored {a}, recomputed {b}")
    print(f"{folder}: {len(theirs) - len(wrong)} of {len(theirs)} numbers agree with predictions.npz")
    return 1 if wrong else 0


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping):
        return {prefix: node}
    return {k: v for key, child in node.items() for k, v in _flat(child, f"{prefix}/{key}").items()}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-6
    return bool(a == b)


def _added_metrics(folder: Path, stored: Mapping[str, Any], task: Task) -> dict[str, Added]:
    """The metrics that the run's configuration added and that `predictions.npz` allows to recompute: none for maps, and
    none in a folder without its configuration."""
    from mmrobust.data.spec import DataSpec
    from mmrobust.evaluation.added_metrics import build_metrics

    if not stored.get("metrics") or task.dense or not (folder / "config.yaml").is_file():
        return {}
    config = load_run_config(folder)
    return build_metrics(config.metrics, DataSpec(stored["identity"]["task"], task.num_classes, 0, {}))
