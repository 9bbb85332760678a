"""Values that are for no file, no message and no server: what a configuration takes from the environment, and passwords.
Imports no torch.

A run's config.yaml has *** in their place. The processes of the command that was given them get them through their
environment; who goes on with the run later gives the command again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmrobust.config.keys import is_text
from mmrobust.errors import HIDDEN, STARS, UserError, masked

# Keys whose values are secrets wherever they come from.
SECRET = re.compile(r"(?i)(^|_)(api_?key|token|secret|password|passwd|pwd|credentials?)$")
# What is needed to find a run's data again.
PLACES = ("paths.", "data.")
# Whose storages are masked by `sweeps.storage`.
MASKED = ("study.", "sweep.", "hydra.")


def hide(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers, resolved, with *** for what is to be hidden; its values are known to this
    process and those that it starts."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    found = dict(_found(OmegaConf.to_container(config), plain))
    if found:
        os.environ[HIDDEN] = json.dumps(json.loads(os.environ.get(HIDDEN, "{}")) | found)
    copies = {value for value in found.values() if len(value) > 3}

    def hidden(node: Any, path: str = "") -> Any:
        if isinstance(node, dict):
            return {k: hidden(child, f"{path}.{k}" if path else str(k)) for k, child in node.items()}
        if isinstance(node, list):
            return [hidden(child, f"{path}[{i}]") for i, child in enumerate(node)]
        whole = isinstance(node, str) and (
            path in found or (not _is_place(path) and any(copy in node for copy in copies))
        )
        return STARS if whole else node

    shown: dict[str, Any] = hidden(plain)
    return shown


def reveal(config: DictConfig) -> DictConfig:
    """The configuration of a run's folder with what the command that started this process had hidden.

    Raises:
        UserError: it is not known here.
    """
    known: dict[str, str] = json.loads(os.environ.get(HIDDEN, "{}"))
    plain: Any = OmegaConf.to_container(config)
    unknown = []
    for key, value in _strings(plain):
        if value == STARS and not key.startswith(MASKED):
            if key in known:
                OmegaConf.update(config, key, known[key])
            else:
                unknown.append(key)
    if unknown:
        raise UserError(
            f"{', '.join(unknown)} came from the environment or is secret, and is in no file: give the command that made the "
            "run again, which goes on with it"
        )
    return config


def _found(raw: Any, plain: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Keys and values that are to be hidden. What refers to another key's is found there."""
    if isinstance(raw, dict) and isinstance(plain, dict):
        for key, child in raw.items():
            yield from _found(child, plain[key], f"{path}.{key}" if path else str(key))
    elif isinstance(raw, list) and isinstance(plain, list):
        for i, (child, value) in enumerate(zip(raw, plain, strict=True)):
            yield from _found(child, value, f"{path}[{i}]")
    elif isinstance(raw, str) and isinstance(plain, str) and plain and not path.startswith(MASKED):
        foreign = "oc.env:" in raw and not _is_place(path) and not plain.startswith(("/", "~"))
        secret = SECRET.search(path.rpartition(".")[2]) or masked(plain) != plain
        if plain != STARS and (foreign or secret):
            yield path, plain


def _is_place(path: str) -> bool:
    return path.startswith(PLACES) or is_text(path)


def _strings(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, child in node.items():
            yield from _strings(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, child in enumerate(node):
            yield from _strings(child, f"{path}[{i}]")
    elif isinstance(node, str):
        yield path, node
