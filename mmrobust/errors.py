"""Mistakes that a user can mend: one exception, and how commands show it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable


class UserError(Exception):
    """A mistake in the command line, the configuration, the data or a file of the user's.

    Its text says what was found, what was expected and what to do next. Commands print it without a
    traceback and exit with status 2.
    """


class Stopped(Exception):  # noqa: N818 (it is no error)
    """A signal ended the run after its state was saved."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.status = 128 + number


def guarded(command: Callable[[], int]) -> int:
    """Run a command; a user's mistake is one message and status 2 (with MMROBUST_TRACEBACK set, its traceback
    too), Ctrl-C is status 130."""
    try:
        return command()
    except UserError as error:
        if os.environ.get("MMROBUST_TRACEBACK"):
            traceback.print_exc()
        print(f"error: {error}" if "\n" not in str(error) else f"errors:\n{error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
