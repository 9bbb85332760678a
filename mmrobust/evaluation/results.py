"""Result files of a run, which every report reads: atomic writing, reading, upgrading.

Every command imports this module, so it imports no torch, and NumPy only inside functions.
"""

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
# The direction in which a metric improves, as reports show it.
ARROWS = {"max": "↑", "min": "↓"}
# The number of combinations of six modalities. Reports show a selection of more; results.json holds all.
MANY = 63


def write_results(folder: Path, results: Mapping[str, Any], name: str = "results.json") -> Path:
    """Write a result file atomically: readers see the old or the new file, even if several processes write."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(results, indent=1, allow_nan=False) + "\n")
    return path


def read_results(path: Path | str) -> dict[str, Any]:
    """Read `results.json`; `path` is the file or its folder.

    Raises:
        UserError: the file does not exist or is not a result file of this schema.
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
    """Fill the fields that an earlier version did not write with the values that its runs had in effect.

    Older result files are handled here only.
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
    """Whether a run has finished, including its evaluation."""
    try:
        return read_results(folder)["status"] == "complete"
    except (UserError, KeyError):
        return False


def write_end(
    folder: Path, config: DictConfig, status: str, epochs: int, message: str = ""
) -> dict[str, Any]:
    """Record in `results.json` that a run has ended without a result; return the file's content.

    Args:
        folder: the run folder.
        config: the run's configuration.
        status: pruned or diverged.
        epochs: number of completed epochs.
        message: the reason.
    """
    identity = {"config_hash": config_hash(config), "study": study_of(config)}
    results = {"schema": SCHEMA, "status": status, "epochs": epochs, "message": message, "identity": identity}
    write_results(folder, results)
    return results


def ended_early(folder: Path) -> str | None:
    """The status of a run that ended without a result, pruned or diverged; None for any other run."""
    try:
        status: str = read_results(folder)["status"]
    except (UserError, KeyError):
        return None
    return status if status in ("pruned", "diverged") else None


def study_of(config: DictConfig) -> dict[str, Any] | None:
    """Name and trial number of the study to which the run belongs; None if it is not a trial."""
    study = config.study
    return {"name": study.name, "trial": study.trial} if study.name else None


def note_trials(folder: Path, study: Mapping[str, Any]) -> None:
    """Update the study fields of a complete result, because a former trial may be requested again as an ordinary run
    or as the best of a study's trials.

    Args:
        folder: the run folder.
        study: the key `study` of the requested configuration.
    """
    results = read_results(folder)
    if study["name"]:
        # An ordinary run that a study reuses as a trial stays an ordinary run.
        return
    protocol = results["protocol"]
    before = results["identity"]["study"], protocol["trials"], protocol["chosen"]
    now = None, study["trials"], list(study["chosen"] or [])
    if before != now:
        results["identity"]["study"], protocol["trials"], protocol["chosen"] = now
        write_results(folder, results)


def write_predictions(
    folder: Path, predictions: Mapping[str, np.ndarray], name: str = "predictions.npz"
) -> Path:
    """Write the arrays from which every metric can be recomputed, without pickled objects."""
    import numpy as np

    path = folder / name
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **predictions)  # type: ignore[arg-type]
    return path


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """Read `predictions.npz`.

    Raises:
        UserError: the file is missing or damaged.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    # A damaged file makes zipfile and NumPy raise exceptions of many classes.
    except Exception as error:
        raise UserError(f"{path} cannot be read: {error}; evaluate the run again") from error


def shown_combinations(results: Mapping[str, Any]) -> dict[str, Any]:
    """The combinations that tables and figures show: all of them, up to MANY. Of more, the selection is the single
    modalities, the combinations with the smallest and largest primary metric, and the full one."""
    rows: dict[str, Any] = results["combinations"]
    if len(rows) <= MANY:
        return rows
    metric = results["primary"]["metric"]
    known = {n: v for n, row in rows.items() if row and (v := row["metrics"][metric]) is not None}
    ends = {end(known, key=known.__getitem__) for end in (min, max) if known} | {list(rows)[-1]}
    return {name: row for name, row in rows.items() if "+" not in name or name in ends}
