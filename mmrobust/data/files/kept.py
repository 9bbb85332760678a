"""What is slow to read or to count is kept on disk. The folder may be deleted at any time."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust.files import replacing, short_hash

log = logging.getLogger(__name__)


def home() -> Path:
    """Where results lie if nobody names a folder, as `paths.cache` has it: `$MMROBUST_CACHE`, else
    `~/.cache/mmrobust`."""
    above = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MMROBUST_CACHE") or Path(above) / "mmrobust")


def cached(
    folder: Path | None, name: str, files: Iterable[Path], options: Any, compute: Callable[[], Any]
) -> np.ndarray:
    """`compute()` as an array, from the folder if it was computed of the same files with the same options before.

    A file is the same if its path, size and time of change are. What cannot be written is not kept, what cannot be
    read is computed again; several processes may do so at once.

    Args:
        folder: where results lie; None keeps nothing.
        name: what the result is called there.
        files: what it is computed of.
        options: all else that it hangs on, as plain data, the version of the computation included.
        compute: gives an array, or a list of numbers or texts; errors pass through.
    """
    if folder is None:
        return np.asarray(compute())
    kept = folder / f"{name}-{identity(files, options)}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        return np.load(kept, allow_pickle=False)
    array = np.asarray(compute())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as part, part.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    except OSError as error:
        say_once(folder, str(error))
    return array


def identity(files: Iterable[Path], options: Any) -> str:
    """Hash of the files' paths, sizes and times of change, and of the options; computing tells of absent files."""
    states: list[Any] = []
    for path in sorted(files):
        with contextlib.suppress(OSError):
            state = path.stat()
            states.append((os.fspath(path.resolve()), state.st_size, state.st_mtime_ns))
    return short_hash(repr((states, options)), 20)


@cache
def say_once(folder: Path, why: str) -> None:
    log.warning(
        "nothing is kept in %s, so files are read anew each time (%s); set paths.cache or MMROBUST_CACHE",
        folder,
        why,
    )
