"""Write and read checkpoints. They hold plain containers and tensors, and loading one runs no code."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from mmrobust.config.trust import resume_command
from mmrobust.data.spec import DataSpec
from mmrobust.errors import UserError
from mmrobust.files import foreign_content
from mmrobust.methods.base import Method
from mmrobust.training.retention import tested

# Key of a checkpoint -> type of its value.
KINDS: dict[str, Any] = {
    "state_dict": dict,
    "spec": dict,
    "method": str,
    "steps": int,
    "seconds": (int, float),
    "position": (list, tuple),
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints atomically: the previous file stays until the new one is complete."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            UserError: the checkpoint cannot be written; the previous one is untouched.
        """
        path = Path(path)
        part = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                part.unlink()
            kept = "the one before is untouched" if path.is_file() else "none was there before"
            raise UserError(
                f"the checkpoint {path} cannot be written: {error}; {kept}. Make room or make the folder writable, then: "
                + resume_command(path.parent.parent)
            ) from error

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load_checkpoint(Path(path))


def checkpoint_path(folder: Path | str, which: str = "best") -> Path:
    """The path of a run's checkpoint `best` or `last`; `best` means the last one if none was selected."""
    name = tested(Path(folder)) if which == "best" else which
    return Path(folder) / "checkpoints" / f"{name}.ckpt"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that a run of mmrobust saved.

    Raises:
        UserError: the file is missing, damaged, holds more than tensors and plain values, or is of another program.
    """
    if not path.is_file():
        raise UserError(
            f"checkpoint {path} does not exist; the run has not saved one, or the folder is another's"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    # Damaged bytes can make the unpickler raise anything.
    except Exception as error:
        raise UserError(
            f"checkpoint {path} ({path.stat().st_size} bytes) cannot be loaded: {foreign_content(path)}. Take another "
            "checkpoint or train again"
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "spec", "method"} <= checkpoint.keys():
        raise UserError(
            f"checkpoint {path} is not one of mmrobust's: it has no state_dict, spec and method; take one that a "
            "run of mmrobust saved"
        )
    if wrong := [
        key for key, kind in KINDS.items() if key in checkpoint and not isinstance(checkpoint[key], kind)
    ]:
        raise UserError(
            f"checkpoint {path} is damaged: {', '.join(wrong)} is not what a run of mmrobust saves. Take another checkpoint "
            "or train again"
        )
    return checkpoint


def load_weights(method: Method, path: Path) -> dict[str, Any]:
    """Load a checkpoint into a method of the same class, data and sizes, and return the checkpoint.

    Raises:
        UserError: as `load_checkpoint` and `check_fits`.
    """
    checkpoint = load_checkpoint(path)
    check_fits(method, checkpoint, path)
    method.load_state_dict(checkpoint["state_dict"])
    return checkpoint


def check_fits(method: Method, checkpoint: dict[str, Any], path: Path) -> None:
    """Check that a checkpoint belongs to this method, with the same data and sizes.

    Raises:
        UserError: the method, the data or a shape differs; the message names the differences.
    """
    remedy = "take a checkpoint of this run, or train again"
    name = f"{type(method).__module__}.{type(method).__qualname__}"
    if checkpoint["method"] != name:
        raise UserError(f"checkpoint {path} is of {checkpoint['method']}, not of {name}; {remedy}")
    theirs, ours = read_spec(checkpoint, path), method.spec
    for what in ("task", "num_classes", "modalities"):
        if getattr(theirs, what) != getattr(ours, what):
            raise UserError(
                f"checkpoint {path} was trained with {what} {getattr(theirs, what)}, the data has "
                f"{getattr(ours, what)}; {remedy}"
            )
    wanted, given = method.state_dict(), checkpoint["state_dict"]
    problems = [f"{key} is missing" for key in wanted if key not in given]
    problems += [f"{key} is unknown" for key in given if key not in wanted]
    problems += [
        f"{key} has shape {_shape(given[key])} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in given and _shape(given[key]) != tuple(wanted[key].shape)
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(
            f"checkpoint {path} does not fit the method: {'; '.join(problems[:5])}{more}; {remedy}"
        )


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def read_spec(checkpoint: dict[str, Any], path: Path) -> DataSpec:
    """The description of the data that a checkpoint was trained with.

    Raises:
        UserError: this version does not know the description.
    """
    try:
        return DataSpec.from_dict(checkpoint["spec"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"checkpoint {path} has a spec that this version of mmrobust does not know ({error!r}); train again"
        ) from error


class Checkpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which also finds the best checkpoint again after the run's folder has moved.

    Args:
        first: the first epoch (from 0) that may become the best.
    """

    def __init__(self, *, first: int, **keys: Any) -> None:
        super().__init__(**keys)
        self.first = first

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        return trainer.current_epoch >= self.first and super().check_monitor_top_k(trainer, current)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        folder = Path(str(self.dirpath))

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        moved = {
            key: here(state_dict[key])
            for key in ("best_model_path", "last_model_path", "kth_best_model_path")
        }
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | moved | {"best_k_models": best, "dirpath": self.dirpath})
