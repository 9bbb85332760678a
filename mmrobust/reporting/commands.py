"""The command that makes a run again, wherever the repository is cloned. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from contextlib import suppress

from mmrobust.config.check import check_command_line
from mmrobust.config.keys import NOT_IN_HASH
from mmrobust.config.overrides import key_of, with_pluses, with_quotes
from mmrobust.errors import UserError

PROGRAM = "python -m mmrobust.run"
# What a run is made with, but not its numbers, and what is only of the machine or the sweep that made it.
LEFT_OUT = ("hydra", "sweep", *NOT_IN_HASH)
# Of these what is needed all the same: to be allowed, to find the samples, to record how the values were chosen.
KEPT = ("allow", "max_combinations", "data.manifest", "study.trials", "study.chosen")


def portable(overrides: Iterable[str]) -> list[str]:
    """The overrides of a run without those that have no effect on its numbers; of a file of this machine, its name.

    Args:
        overrides: as `overrides.txt` and `identity.overrides` have them.
    """
    kept = []
    for text in overrides:
        key = key_of(text).replace("/", ".")
        if not f"{key}.".startswith(tuple(f"{left}." for left in LEFT_OUT)) or key in KEPT:
            kept.append(_without_folder(text))
    return kept


def _without_folder(text: str) -> str:
    """An override, whose value may be a path: one that leads out of the repository keeps its last part."""
    name, _, value = text.partition("=")
    path = value.strip("'\"")
    if path.startswith(("/", "~", "../")) and not set(path) & set("[]{}"):
        return f"{name}={path.rstrip('/').rpartition('/')[2]}"
    return text


def command_of(overrides: Iterable[str]) -> str:
    """One line for a shell."""
    return " ".join([PROGRAM, shlex.join(overrides)]).strip()


def overrides_of(command: str) -> list[str]:
    """Raises: UserError: it is no command of ours."""
    program, words = PROGRAM.split(), []
    with suppress(ValueError):
        words = shlex.split(command)
    if words[: len(program)] != program:
        raise UserError(f"{command!r} is no command that makes a run: it is {PROGRAM} and its overrides")
    return words[len(program) :]


def check_command(command: str) -> None:
    """Look at a command as it would look at itself, without running it.

    Raises:
        UserError: it is no command of ours; its configuration cannot be composed any more.
    """
    given = with_pluses(with_quotes(overrides_of(command)))
    try:
        check_command_line(given, None, multirun=False)
    except UserError as error:
        raise UserError(f"{command} does not compose: {'; '.join(str(error).splitlines())}") from error
