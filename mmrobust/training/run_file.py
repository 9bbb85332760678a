"""A trained run as one file: weights as safetensors, all else as JSON in their metadata; nothing in it can run code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmrobust.config.identity import checked_config, load_run_config
from mmrobust.errors import UserError
from mmrobust.files import foreign_content, replacing

ENDING = ".mmrobust"
KEY, FORMAT = "mmrobust", 1
MOST = 2**24  # bytes of the head, of which the configuration and the names of the weights are a small part


def write_run_file(run: Path, checkpoint: str, path: Path) -> int:
    """Make one file of a run; returns its size in bytes.

    Raises:
        UserError: the run or its checkpoint cannot be read; the state holds more than tensors.
    """
    from safetensors.torch import save_file
    from torch import Tensor

    from mmrobust.training.checkpoints import checkpoint_path, load_checkpoint

    loaded = load_checkpoint(checkpoint_path(run, checkpoint))
    state = loaded["state_dict"]
    if strange := [name for name, x in state.items() if not isinstance(x, Tensor)]:
        raise UserError(
            f"the state of {run} holds more than tensors: {', '.join(strange[:3])}; it cannot be exported"
        )
    head = {
        "format": FORMAT,
        "config": _without_places(load_run_config(run)),
        "spec": loaded["spec"],
        "method": loaded["method"],
    }
    # Apart: safetensors keeps no two names of one memory.
    tensors = {name: x.detach().clone().contiguous() for name, x in state.items()}
    with replacing(path) as part:
        save_file(tensors, part, metadata={KEY: json.dumps(head)})
    return path.stat().st_size


def read_description(path: Path) -> tuple[DictConfig, dict[str, Any]]:
    """The configuration, and the description of the data as plain data; imports no torch. Raises as `read_run_file`."""
    head = _head(path)
    return checked_config(head["config"], path), head["spec"]


def read_run_file(path: Path) -> tuple[DictConfig, dict[str, Any]]:
    """The configuration, and what `load_checkpoint` would give of weights and spec.

    Raises:
        UserError: no such file, damaged, cut short, or none of ours; a class that must not be built.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    head = _head(path)
    config = checked_config(head["config"], path)
    try:
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); export the run again") from error
    return config, {"state_dict": state, "spec": head["spec"], "method": head["method"]}


def _head(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= MOST:
                raise ValueError
            head = json.loads(json.loads(file.read(length))["__metadata__"][KEY])
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is no run that `python -m mmrobust.export` wrote: {foreign_content(path)}; name a run's folder, or such "
            "a file"
        ) from error
    kinds = {"config": dict, "spec": dict, "method": str}
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        found = head.get("format") if isinstance(head, dict) else None
        raise UserError(
            f"{path} is of format {found}, this version of mmrobust reads {FORMAT}; export the run again"
        )
    if wrong := [key for key, kind in kinds.items() if not isinstance(head.get(key), kind)]:
        raise UserError(
            f"{path} is damaged: {', '.join(wrong)} is not what an export holds; export the run again"
        )
    return head


def _without_places(config: DictConfig) -> dict[str, Any]:
    """A configuration as plain data, without where things lay on the machine that trained."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    plain |= {"paths": dict.fromkeys(plain["paths"]), "logger": {}, "callbacks": {}}
    for key in ("root", "manifest", "file"):
        if plain["data"].get(key):
            plain["data"][key] = Path(plain["data"][key]).name
    if "cache" in plain["data"]:
        plain["data"]["cache"] = None
    for name in ("study", "sweep"):
        plain[name] = {key: None if key == "storage" else x for key, x in (plain.get(name) or {}).items()}
    _name_weights(plain)
    if plain["method"].get("teacher"):
        plain["method"]["teacher"]["run"] = None
    found: dict[str, Any] = plain
    return found


def _name_weights(node: Any) -> None:
    """Leave of every file of pretrained weights its name."""
    for key, child in node.items() if isinstance(node, dict) else ():
        if key == "weights" and isinstance(child, str):
            node[key] = Path(child).name
        _name_weights(child)
