"""Keep or remove the checkpoints of a run that has ended. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mmrobust.config.identity import load_run_config
from mmrobust.errors import UserError
from mmrobust.evaluation.results import read_results


def tested(folder: Path) -> str:
    """The name of the checkpoint that is tested: `best`, or `last` if no best one was selected."""
    results = _results(folder)
    if "selection" in results:
        return "last" if results["selection"]["checkpoint"] == "last" else "best"
    return "best" if (folder / "checkpoints" / "best.ckpt").is_file() else "last"


def retain(folder: Path, keep: str) -> None:
    """Remove the checkpoints of a run that `keep` does not name. Unfinished and diverged runs keep all.

    Args:
        folder: the run's folder.
        keep: best (the tested one), last, all or none. A pruned trial keeps no checkpoint, except with all.
    """
    status = _results(folder).get("status")
    if status not in ("complete", "pruned") or keep == "all":
        return
    stays = "" if status == "pruned" else tested(folder) if keep == "best" else keep
    for path in (folder / "checkpoints").glob("*.ckpt"):
        if path.stem in ("best", "last") and path.stem != stays:
            path.unlink(missing_ok=True)


def kept_checkpoint(folder: Path, config: DictConfig) -> Path | None:
    """The path of the checkpoint that a run will keep; None if it keeps none, or Lightning saves none."""
    stays = {"last": "last", "none": None}.get(config.keep, tested(folder))
    return folder / "checkpoints" / f"{stays}.ckpt" if stays and not config.trainer.fast_dev_run else None


def require_checkpoint(folder: Path, which: str = "best") -> None:
    """Require a checkpoint of a complete run.

    Raises:
        UserError: the run did not keep the checkpoint.
    """
    results = _results(folder)
    name = tested(folder) if which == "best" else which
    if (
        results.get("status") not in ("complete", "pruned")
        or (folder / "checkpoints" / f"{name}.ckpt").is_file()
    ):
        return
    others = sorted(path.stem for path in (folder / "checkpoints").glob("*.ckpt"))
    keep = load_run_config(folder).keep
    instead = f"Take checkpoint={others[0]}, or train" if others else "Train"
    raise UserError(
        f"{folder} has no {which} checkpoint: it is complete and was made with keep={keep}. {instead} it again in another "
        "folder with keep=all (paths.run=<folder>); `evaluate verify=true` needs no checkpoint"
    )


def _results(folder: Path) -> dict[str, Any]:
    try:
        return read_results(folder)
    except UserError:
        return {}
