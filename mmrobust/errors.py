"""Mistakes that a user can mend: one exception, and how commands show it."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR)
NO_MEMORY = ("DefaultCPUAllocator: ", "CUDA out of memory", "Invalid buffer size")  # torch's RuntimeErrors
LIBRARIES = ("hydra.errors", "omegaconf.errors", "lightning.fabric.utilities.exceptions")


class UserError(Exception):
    """A mistake in the command line, the configuration, the data or a file of the user's.

    Its text says what was found, what was expected and what to do next. Commands print it without a
    traceback and exit with status 2.
    """

    def __init__(self, text: str) -> None:
        marker = f"{__name__}.UserError: "
        if text.startswith("Caught UserError in ") and marker in text:  # torch's wrapping of a worker's error
            super().__init__(text.rpartition(marker)[2].strip())
            self.add_note(text)
        else:
            super().__init__(text)


class DivergenceError(UserError):
    """A loss that is no number: the same settings would end there again."""


class Stopped(Exception):  # noqa: N818 (it is no error)
    """A signal ended the run after its state was saved."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.status = 128 + number


class Problems(list[str]):
    """What is wrong, collected so that it is said all at once. Its text is the only problem, or a list of them."""

    def add(self, what: str, found: Sequence[str], remedy: str) -> None:
        """Add a problem, if anything was found to have it: how many, and the first few."""
        if found:
            self.append(f"{what}: {summarised(found)}; {remedy}")

    def __str__(self) -> str:
        return self.listed() if len(self) > 1 else "".join(self)

    def listed(self) -> str:
        """A line for each."""
        return "\n".join(f"- {problem}" for problem in self)


def as_user_error(error: BaseException | None) -> UserError | None:
    """What is a user's mistake although another library found it: a configuration that cannot be, a disk."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno in DISK:
        return UserError(
            f"{error.filename or 'a file'} cannot be used: {error.strerror}; make room, make it writable, or "
            "choose another folder with paths.outputs"
        )
    if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
        what = " ".join(str(error).split()).partition(". ")[0]
        return UserError(
            f"there is not enough memory: {what or 'this machine has none left'}; make data.batch_size, the inputs or the "
            "encoders smaller, or their numbers"
        )
    if type(error).__module__ in LIBRARIES:
        inner = as_user_error(error.__cause__) if error else None  # Hydra wraps what a constructor raises
        lines = (line.strip() for line in str(error).splitlines())
        return inner or UserError("; ".join(line for line in lines if line))
    return None


def guarded(command: Callable[[], int]) -> int:
    """Run a command; a user's mistake is one message and status 2 (with MMROBUST_TRACEBACK set, its traceback
    too), Ctrl-C is status 130. A mistake of ours keeps its traceback."""
    try:
        return command()
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        mistake = as_user_error(error)
        if mistake is None:
            raise
        if os.environ.get("MMROBUST_TRACEBACK"):
            traceback.print_exc()
        text = str(mistake)
        print(f"errors:\n{text}" if text.startswith("- ") else f"error: {text}", file=sys.stderr)
        return 2


def one_of(key: str, value: object, known: Sequence[str]) -> None:
    """Raises: UserError: `key` has a value that is none of the known."""
    if value not in known:
        raise UserError(f"{key}={value!r} is not known; choose {', '.join(known)}")


def summarised(found: Sequence[str]) -> str:
    """How many, and the first three."""
    return f"{len(found)} ({', '.join(found[:3])}{', …' if len(found) > 3 else ''})"
