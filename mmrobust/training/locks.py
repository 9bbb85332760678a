"""Locks of the operating system, released when the processes that hold them are gone. Imports no torch."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmrobust.errors import UserError

UNLOCKABLE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems that know no locks

# Open files with locks. A child process that is given them keeps the locks while it lives.
HELD: set[int] = set()


def take(path: Path, *, wait: bool) -> int | None:
    """The lock's open file; none if another holds it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(file)
        return None
    except OSError as error:
        if error.errno not in UNLOCKABLE:
            os.close(file)
            raise
        print(f"{path} cannot be locked ({error.strerror}); start no run twice", file=sys.stderr, flush=True)
    except BaseException:  # a signal while waiting
        os.close(file)
        raise
    HELD.add(file)
    return file


def release(file: int) -> None:
    HELD.discard(file)
    os.close(file)


@contextmanager
def locked(path: Path, *, waiting: str = "", refused: str = "") -> Iterator[None]:
    """Hold a lock.

    Args:
        path: its file, which stays.
        waiting: printed if another process holds it and this one waits.
        refused: said instead of waiting.

    Raises:
        UserError: `refused`, if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = take(path, wait=False)
    if file is None:
        if refused:
            raise UserError(refused)
        if waiting:
            print(waiting, flush=True)
        file = take(path, wait=True)
    assert file is not None
    try:
        yield
    finally:
        release(file)
