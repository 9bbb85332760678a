"""Atomic writes, a check for links that leave a folder, and file hashes. Imports no torch."""

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
    """Yield a temporary path beside `path`; what is written there replaces `path` at the end.

    Readers see the old file (or folder) or the new one, never a part of it. The temporary path is removed if anything
    fails. Several processes may write at once: the last one wins. An OSError names `path`.
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
    """Write a text file atomically, and flush it to the disk, so that it survives a crash of the machine."""
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the name of this file into an OSError raised within: the error of a failed write names no file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise


def expanded(path: Path | str) -> Path:
    """Expand `~` to the home folder; a path with an unknown user stays unchanged."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def check_inside(folder: Path) -> None:
    """Check that no link in a run's folder leads out of it: the folder may come from somebody else.

    The folder `wandb` is left out: only W&B reads it, and W&B puts links to its cache there.

    Raises:
        UserError: a link leads out of the folder, or an entry is neither a file nor a folder.
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
    """The first `length` hex digits of the sha256 of a text, of bytes, or of plain data as JSON with sorted keys."""
    if not isinstance(data, bytes):
        data = (data if isinstance(data, str) else json.dumps(data, sort_keys=True)).encode()
    return hashlib.sha256(data).hexdigest()[:length]


def file_hash(path: Path) -> str:
    """The sha256 of a file as hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_pointer(path: Path) -> bool:
    """Whether this file is a git-LFS pointer, which a clone without LFS leaves in the place of the content."""
    with path.open("rb") as file:
        return file.read(len(LFS)) == LFS


def foreign_content(path: Path) -> str:
    """Say what a file that could not be loaded as tensors seems to be, judged by its first bytes."""
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
