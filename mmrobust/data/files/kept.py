"""Decoded files kept on disk: what is slow to decode is decoded once. The folder may be deleted at any time."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)


def cached(folder: Path | None, path: Path, options: str, decode: Callable[[Path], np.ndarray]) -> np.ndarray:
    """`decode(path)`, from the folder if the same file was decoded with the same options before.

    A file is the same if its path, size and time of change are. What cannot be written is not kept, what cannot be
    read is decoded again; several processes may do so at once.

    Args:
        folder: where results lie; None keeps nothing.
        path: the file.
        options: all that the result hangs on, the version of the decoding included.
        decode: gives one array; errors pass through.
    """
    if folder is None:
        return decode(path)
    kept = folder / f"{path.stem}-{identity(path, options)}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        return np.load(kept, allow_pickle=False)
    array = decode(path)
    try:
        write(kept, array)
    except OSError as error:
        say_once(folder, str(error))
    return array


def identity(path: Path, options: str) -> str:
    """Hash of a file's path, size and time of change, and of the options."""
    try:
        state = path.stat()
    except OSError:
        return "absent"  # decoding will say so
    text = repr((os.fspath(path.resolve()), state.st_size, state.st_mtime_ns, options))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def write(path: Path, array: np.ndarray) -> None:
    """The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, array, allow_pickle=False)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


@cache
def say_once(folder: Path, why: str) -> None:
    log.warning(
        "nothing is kept in %s, so files are decoded anew each time (%s); set paths.cache", folder, why
    )
