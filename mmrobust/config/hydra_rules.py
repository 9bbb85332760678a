"""What a configuration may say to Hydra itself, which builds classes and starts programs, too. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmrobust.config.build import class_of, refused
from mmrobust.config.overrides import key_of
from mmrobust.errors import UserError

# Programs, and variables that choose programs: not for a file to say.
OF_THE_COMMAND_LINE = (
    "hydra.job.env_set",
    "hydra.launcher.setup",
    "hydra.launcher.python",
    "hydra.launcher.srun_args",
    "hydra.launcher.additional_parameters",
)

# What a logging configuration may build.
LOGGING = ("logging.", "colorlog.ColoredFormatter")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")


def check_hydra(node: DictConfig, overrides: Sequence[str]) -> None:
    """Look at the node `hydra` of a composed configuration, before Hydra builds anything of it.

    Args:
        node: as composed.
        overrides: of the command line.

    Raises:
        UserError: a class of another role than its place asks for; a program that a file names.
    """
    plain: Any = OmegaConf.to_container(node)
    problems = refused({key: plain.get(key) for key in ("callbacks", "launcher", "sweeper")}, "hydra.")
    for name in ("job_logging", "hydra_logging"):
        problems += _check_logging(plain.get(name), f"hydra.{name}")
    given = {key_of(text) for text in overrides}
    for key in OF_THE_COMMAND_LINE:
        on_command_line = any(f"{key}.".startswith(f"{k}.") or k.startswith(f"{key}.") for k in given)
        if OmegaConf.select(node, key.removeprefix("hydra."), default=None) and not on_command_line:
            problems.append(f"{key} is set by a file; what starts programs is for the command line alone")
    if problems:
        raise UserError("; ".join(problems))
    for name, callback in (plain.get("callbacks") or {}).items():
        class_of(str(callback["_target_"]), f"hydra.callbacks.{name}._target_")


def _check_logging(node: Any, path: str) -> list[str]:
    return [
        f"{path}={value} is nothing that a log is made of; take Hydra's own hydra/{path.split('.')[1]}"
        for path, value in _leaves(node, path)
        if (path.rpartition(".")[2] in ("()", "class", "factory") and not str(value).startswith(LOGGING))
        or (str(value).startswith("ext://") and value not in STREAMS)
    ]


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, child in node.items():
            yield from _leaves(child, f"{path}.{key}")
    elif isinstance(node, list):
        for child in node:
            yield from _leaves(child, path)
    else:
        yield path, node
