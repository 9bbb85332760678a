"""File locks of the operating system, which end with the last process that holds them. Imports no torch."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmrobust.errors import UserError

# Errors of file systems that have no locks.
UNLOCKABLE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

# Open files with locks. A child process that inherits them keeps the locks while it lives.
HELD: set[int] = set()


def take(path: Path, *, wait: bool) -> int | None:
    """Take a lock; a file system without locks only prints a warning.

    Args:
        path: the lock's file, which is created if it does not exist.
        wait: whether to wait for another process that holds the lock.

    Returns:
        The descriptor of the open file, for `release`; None if another process holds the lock and `wait` is false.
    """
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
    # A signal may raise while this waits.
    except BaseException:
        os.close(file)
        raise
    HELD.add(file)
    return file


def release(file: int) -> None:
    """Release a lock that `take` returned."""
    HELD.discard(file)
    os.close(file)


@contextmanager
def locked(path: Path, *, waiting: str = "", refused: str = "") -> Iterator[None]:
    """Hold a lock.

    Args:
        path: the lock's file, which is not removed afterwards.
        waiting: the text to print if another process holds the lock and this one waits.
        refused: the text of the error to raise instead of waiting.

    Raises:
        UserError: another process holds the lock, and `refused` is given.
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
