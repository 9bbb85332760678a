"""Checks the machine's resources for data workers, and makes a failing worker exit instead of blocking the others."""

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
AHEAD = 2  # batches that each worker prefetches (torch's default), beside the one in use
FILES = 8  # open files of each worker, beside those of its batches
OTHERS = 32  # open files of the training process


def check_machine(workers: int, batch: int, tensors: int) -> None:
    """Check shared memory and the limit of open files before any worker starts.

    Args:
        workers: number of workers.
        batch: bytes of a batch.
        tensors: number of tensors in a batch.

    Raises:
        UserError: shared memory or open files do not suffice; torch would hang without a message.
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
    """Bytes of a batch with float32 inputs of these shapes, including a label image of the first one's size."""
    numbers = sum(_product(shape) for shape in shapes)
    return rows * (4 * numbers + 8 * _product(shapes[0][-2:]))


def _product(shape: Sequence[int]) -> int:
    found = 1
    for size in shape:
        found *= size
    return found


def start_worker(number: int) -> None:
    """Set up a new worker: it exits if it cannot hand over a batch, so that no process waits for it.

    Signals to every process of a run, such as Ctrl-C or a cluster's, concern the main process only, which still needs
    batches to save its state. A second SIGTERM ends a worker, because the main process no longer waits for it then.
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
    """End the worker on errors of too many open files, after which a file-serving thread would retry for ever."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        _end(error, None)
    sys.__excepthook__(kind, error, trace)
