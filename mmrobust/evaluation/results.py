"""The result file: what a run leaves, written atomically, read by every report. Imports no torch, nor NumPy before it is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from mmrobust.config.identity import config_hash
from mmrobust.errors import UserError
from mmrobust.files import replacing, write_text

if TYPE_CHECKING:
    import numpy as np

SCHEMA = 1
ARROWS = {"max": "↑", "min": "↓"}  # which values of a metric are good
# Combinations, those of six modalities: of more, some are shown; results.json has all.
MANY = 63


def write_results(folder: Path, results: Mapping[str, Any], name: str = "results.json") -> Path:
    """Write a result file; a reader sees an old or a new one, never half of it, even if several processes write."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(results, indent=1, allow_nan=False) + "\n")
    return path


def read_results(path: Path | str) -> dict[str, Any]:
    """Read `results.json`, given it or its folder.

    Raises:
        UserError: there is none, or it is not a result of this framework.
    """
    path = Path(path)
    path = path / "results.json" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the folder of a finished run")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a result file: {error}") from error
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        raise UserError(f"{path} is not a result file of schema {SCHEMA}")
    return upgrade(results)


def upgrade(results: dict[str, Any]) -> dict[str, Any]:
    """A result of an earlier version, with what came later set to what was true without it.

    This is the only place that knows older results.
    """
    clean = {"protocol": {"name": "clean"}}
    identity = results.get("identity")
    encoder = identity.get("encoder") if isinstance(identity, dict) else None
    later: dict[str, dict[str, Any]] = {
        "identity": {"unverified": "", "study": None, "encoders": encoder},
        "protocol": {"noise": {"train": clean, "test": clean}, "trials": None, "chosen": []},
    }
    for part, values in later.items():
        if isinstance(results.get(part), dict):
            for key, value in values.items():
                results[part].setdefault(key, value)
    return results


def is_complete(folder: Path) -> bool:
    """Whether a run has finished, evaluation included."""
    try:
        return read_results(folder)["status"] == "complete"
    except (UserError, KeyError):
        return False


def write_end(
    folder: Path, config: DictConfig, status: str, epochs: int, message: str = ""
) -> dict[str, Any]:
    """Say in `results.json` that a run has ended without a result; returns what the file holds.

    Args:
        folder: the run's.
        config: its configuration.
        status: pruned or diverged.
        epochs: that were complete.
        message: why.
    """
    identity = {"config_hash": config_hash(config), "study": study_of(config)}
    results = {"schema": SCHEMA, "status": status, "epochs": epochs, "message": message, "identity": identity}
    write_results(folder, results)
    return results


def ended_early(folder: Path) -> str | None:
    """How a run ended that has no result: pruned or diverged."""
    try:
        status: str = read_results(folder)["status"]
    except (UserError, KeyError):
        return None
    return status if status in ("pruned", "diverged") else None


def study_of(config: DictConfig) -> dict[str, Any] | None:
    """The study that the run is a trial of."""
    study = config.study
    return {"name": study.name, "trial": study.trial} if study.name else None


def note_trials(folder: Path, study: Mapping[str, Any]) -> None:
    """Bring a complete result up to date with what the run is now: one that a study tried before may be asked for by
    itself, or as the best of so many trials.

    Args:
        folder: the run's.
        study: `study` of its configuration.
    """
    results = read_results(folder)
    if study["name"]:
        return  # a trial that was an ordinary run before stays one
    protocol = results["protocol"]
    before = results["identity"]["study"], protocol["trials"], protocol["chosen"]
    now = None, study["trials"], list(study["chosen"] or [])
    if before != now:
        results["identity"]["study"], protocol["trials"], protocol["chosen"] = now
        write_results(folder, results)


def write_predictions(
    folder: Path, predictions: Mapping[str, np.ndarray], name: str = "predictions.npz"
) -> Path:
    """Write the arrays from which every number can be recomputed, without pickled objects."""
    import numpy as np  # here, because every command imports this file

    path = folder / name
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **predictions)  # type: ignore[arg-type]
    return path


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """Read `predictions.npz`.

    Raises:
        UserError: it is missing or damaged.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # bytes that are no such file make zipfile and NumPy raise many kinds
        raise UserError(f"{path} cannot be read: {error}; evaluate the run again") from error


def shown_combinations(results: Mapping[str, Any]) -> dict[str, Any]:
    """The combinations that a table and a picture show: all; of more than MANY the single modalities, those with the
    least and the largest primary metric, and the full one."""
    rows: dict[str, Any] = results["combinations"]
    if len(rows) <= MANY:
        return rows
    metric = results["primary"]["metric"]
    known = {n: v for n, row in rows.items() if row and (v := row["metrics"][metric]) is not None}
    ends = {end(known, key=known.__getitem__) for end in (min, max) if known} | {list(rows)[-1]}
    return {name: row for name, row in rows.items() if "+" not in name or name in ends}
