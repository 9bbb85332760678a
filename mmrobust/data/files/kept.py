"""What is slow to read or count is kept on disk. The folder may be deleted at any time."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust.files import replacing, short_hash, write_text

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
    return short_hash(text, 20)


def write(path: Path, array: np.ndarray) -> None:
    """The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, array, allow_pickle=False)


@cache
def say_once(folder: Path, why: str) -> None:
    log.warning(
        "nothing is kept in %s, so files are decoded anew each time (%s); set paths.cache", folder, why
    )


def kept_value(what: str, files: Iterable[Path], options: Any, compute: Callable[[], Any]) -> Any:
    """What `compute` returns (plain data), kept in `$MMROBUST_CACHE`, else `~/.cache/mmrobust`, for as long as the
    files keep their names, sizes and times of change and the options stay the same."""
    stats = {os.fspath(file.absolute()): file.stat() for file in sorted(files)}
    stamps = [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats.items()]
    name = short_hash([what, stamps, options], 24)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get("MMROBUST_CACHE") or Path(home) / "mmrobust") / f"{what}-{name}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text())
    value = compute()
    try:  # several processes may do this at once: the last one wins, with the same content
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(value))
    except OSError as error:
        log.info(
            "%s cannot be kept in %s (%s); it is computed anew each time", what, path.parent, error.strerror
        )
    return value
