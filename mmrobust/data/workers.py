"""What data workers need of the machine, and how one that cannot go on ends instead of having the others wait."""

from __future__ import annotations

import errno
import multiprocessing.queues
import os
import resource
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mmrobust.errors import UserError

SHARED = Path("/dev/shm")
AHEAD = 2  # batches that torch has each worker prepare, beside the one in use
FILES = 8  # that each worker takes, beside those of its batches
OTHERS = 32  # open files of a process that trains


def check_machine(workers: int, batch: int, tensors: int) -> None:
    """Look for room before any worker is started.

    Args:
        workers: how many.
        batch: bytes of a batch.
        tensors: of a batch.

    Raises:
        UserError: shared memory or open files that would not do, which torch waits for without end.
    """
    if not workers:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files = OTHERS + workers * (FILES + AHEAD * tensors)
    if hard != resource.RLIM_INFINITY and hard < files:
        raise UserError(
            f"data.workers={workers} need about {files} open files, and this process may have {hard}; allow more (ulimit "
            "-n 4096), or set data.workers=0"
        )
    if not SHARED.is_dir():
        return
    free, needed = shutil.disk_usage(SHARED).free, workers * (AHEAD + 1) * batch
    if free < needed:
        raise UserError(
            f"{SHARED} has {_mib(free)} free, and data.workers={workers} with batches of {_mib(batch)} need about "
            f"{_mib(needed)}; give it more (docker run --shm-size=8g), set data.workers or data.batch_size lower, or "
            "data.workers=0"
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def bytes_of(shapes: Sequence[Sequence[int]], rows: int) -> int:
    """Of a batch with float32 inputs of these shapes; a map of labels as large as the first of them included."""
    numbers = sum(_product(shape) for shape in shapes)
    return rows * (4 * numbers + 8 * _product(shapes[0][-2:]))


def _product(shape: Sequence[int]) -> int:
    found = 1
    for size in shape:
        found *= size
    return found


def start_worker(number: int) -> None:
    """In a new worker: whatever keeps a batch from being handed over ends it, and with it the others' waiting.

    A signal that reaches every process of a run, such as Ctrl-C or one of a cluster, is for the main process alone, which
    still needs batches to save its state. A second SIGTERM ends a worker: the main process no longer waits for it.
    """
    for shared in (signal.SIGINT, signal.SIGHUP):
        signal.signal(shared, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    queue: Any = multiprocessing.queues.Queue
    queue._on_queue_feeder_error = staticmethod(_end)
    sys.excepthook = _end_without_files


def _end(error: BaseException, batch: object) -> None:
    print(f"a data worker cannot hand over a batch: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def _end_without_files(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Of a thread that serves files and would try again for ever."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        _end(error, None)
    sys.__excepthook__(kind, error, trace)
