"""Items that several datasets have: files that stay as they are, lists, samples that are not there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from mmrobust.errors import UserError
from mmrobust.files import naming
from mmrobust.prepare.plan import Item
from mmrobust.prepare.written import write_bytes


def absent(name: str, why: str) -> Item:
    """A sample that the download should have, and has not."""

    def refuse(root: Path) -> None:
        raise UserError(why)

    return Item(name, (), (), refuse)


def copied(source: Path, output: str) -> Item:
    """A file that stays as it is, such as a list."""
    return Item(output, (source,), (output,), partial(copy, {output: source}))


def copy(files: Mapping[str, Path], root: Path) -> None:
    """Copy files to where they belong below `root`."""
    for output, source in files.items():
        with naming(source):
            content = source.read_bytes()
        write_bytes(root / output, content)


def listed(output: str, lines: list[str], source: Path) -> Item:
    """A list, a name a line, made of what a file of the download says."""
    content = "".join(f"{line}\n" for line in lines).encode()
    return Item(output, (source,), (output,), lambda root: write_bytes(root / output, content))
