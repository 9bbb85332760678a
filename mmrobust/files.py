"""Files that appear whole or not at all, and short hashes of plain data. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it replaces `path` at the end, or is removed if anything fails.

    A reader sees an old file or a new one, never half of it. Several processes may do so at once: the last one wins.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text)


def short_hash(data: Any, length: int = 16) -> str:
    """The first letters of the sha256 of a text, of bytes, or of plain data as JSON with its keys sorted."""
    if not isinstance(data, bytes):
        data = (data if isinstance(data, str) else json.dumps(data, sort_keys=True)).encode()
    return hashlib.sha256(data).hexdigest()[:length]


def file_hash(path: Path) -> str:
    """The sha256 of a file, for the record."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def foreign_content(path: Path) -> str:
    """What a file may be that could not be loaded as tensors, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(100).lstrip()
    if not head:
        return "it is empty"
    if head.startswith(b"<"):
        return "it is a web page, such as a failed download leaves"
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-LFS pointer; run `git lfs pull`"
    return (
        "it is cut short, another kind of file, or holds more than tensors and plain values, which is refused"
    )
