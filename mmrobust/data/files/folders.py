"""What lies in folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from mmrobust.errors import Problems

# Endings of pictures, which may be stored with losses.
PICTURES = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")

log = logging.getLogger(__name__)


def exists(path: Path, folders: dict[str, set[str]]) -> bool:
    """Whether there is such a file; lists each folder once, into `folders`."""
    return path.name in names_in(path.parent, folders)


def names_in(path: Path, folders: dict[str, set[str]]) -> set[str]:
    """The names in a folder, none if it does not exist; lists each folder once, into `folders`."""
    folder = os.fspath(path)
    if folder not in folders:
        folders[folder] = set(os.listdir(folder)) if path.is_dir() else set()  # noqa: PTH208
    return folders[folder]


def picture(path: Path, folders: dict[str, set[str]]) -> Path:
    """The path with the ending under which it lies on disk, if it does; lists each folder once, into `folders`."""
    names = names_in(path.parent, folders)
    others = (path.with_suffix(ending) for ending in PICTURES)
    return next((other for other in (path, *others) if other.name in names), path)


def find(name: str, folders: Sequence[Path], problems: Problems, remedy: str) -> Path:
    """The file of that name in the first of the folders that has it, else where it could be. Adds to `problems`."""
    for folder in folders:
        if (folder / name).is_file():
            log.info("%s: %s", name, folder / name)
            return folder / name
    problems.append(f"no {name} in any of {', '.join(map(str, folders))}; {remedy}")
    return folders[0] / name
