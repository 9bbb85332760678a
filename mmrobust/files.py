"""Files that appear whole or not at all, folders without links out of them, and short hashes. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmrobust.errors import UserError

LFS = b"version https://git-lfs"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` for a file or a folder to write; it replaces `path` at the end, or is removed if anything fails.

    A reader sees an old file or a new one, never half of it. Several processes may do so at once: the last one wins.
    An error of the disk names `path`.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with naming(path):
            yield part
            part.replace(path)
    finally:
        with suppress(OSError):
            shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all, and onto the disk, so that it outlives a machine that goes down."""
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the operating system within says that it was about this file: that of a write says no name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise


def expanded(path: Path | str) -> Path:
    """With `~` as the home folder; of a user that there is not, as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def check_inside(folder: Path) -> None:
    """Look at what lies in a run's folder, which may be somebody else's. W&B's own folder, which only W&B reads, has
    links to its cache.

    Raises:
        UserError: a link out of the folder, which nothing must be written through, or something that is no file.
    """
    whole = folder.resolve()
    for parent, below, files in os.walk(folder):
        for name in (*below, *files):
            path = Path(parent, name)
            if path.is_symlink() and not path.resolve().is_relative_to(whole):
                raise UserError(
                    f"{path} is a link to {path.resolve()}, out of the run's folder; put the file itself there, or "
                    "remove the link"
                )
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise UserError(f"{path} is neither a file nor a folder; remove it")
        below[:] = [name for name in below if name != "wandb"]


def short_hash(data: Any, length: int = 16) -> str:
    """The first letters of the sha256 of a text, of bytes, or of plain data as JSON with its keys sorted."""
    if not isinstance(data, bytes):
        data = (data if isinstance(data, str) else json.dumps(data, sort_keys=True)).encode()
    return hashlib.sha256(data).hexdigest()[:length]


def file_hash(path: Path) -> str:
    """The sha256 of a file, for the record."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_pointer(path: Path) -> bool:
    """Whether this is the small text file that a git clone without LFS leaves in a file's place."""
    with path.open("rb") as file:
        return file.read(len(LFS)) == LFS


def foreign_content(path: Path) -> str:
    """What a file may be that could not be loaded as tensors, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(100).lstrip()
    if not head:
        return "it is empty"
    if head.startswith(b"<"):
        return "it is a web page, such as a failed download leaves"
    if head.startswith(LFS):
        return "it is a git-LFS pointer; run `git lfs pull`"
    return (
        "it is cut short, another kind of file, or holds more than tensors and plain values, which is refused"
    )
