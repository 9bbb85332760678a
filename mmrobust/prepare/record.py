"""What was made of a download: a line for each item while it is made, a file when all is."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmrobust.errors import UserError
from mmrobust.files import write_text

MANIFEST, JOURNAL = "prepared.json", "prepared.journal"


@dataclass(frozen=True)
class Output:
    """A file or a folder: how many files, how many bytes, and the sha256 of their names and contents."""

    files: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """What became of an item.

    Args:
        name, split, label: of the item.
        key: hash of the state of its sources and of what they were made with.
        outputs: by their paths below the prepared folder; none if it was skipped.
        why: it was skipped.
    """

    name: str
    split: str
    label: str
    key: str
    outputs: Mapping[str, Output]
    why: str = ""

    def line(self) -> str:
        return json.dumps({k: v for k, v in asdict(self).items() if v}, ensure_ascii=False)


def parse_record(found: Mapping[str, Any]) -> Record:
    """Of what `Record.line` wrote."""
    outputs = {path: Output(**numbers) for path, numbers in found.get("outputs", {}).items()}
    values = {name: found.get(name, "") for name in ("name", "split", "label", "key", "why")}
    return Record(outputs=outputs, **values)


@dataclass(frozen=True)
class Manifest:
    """Args:
    dataset: its name.
    options: what the items were made with.
    generated: the download was made by `prepare synthetic`.
    records: of all items, in the plan's order.
    """

    dataset: str
    options: Mapping[str, Any]
    generated: bool
    records: list[Record]

    def counts(self) -> dict[str, dict[str, int]]:
        """Samples that were made, by split and class; lists are none."""
        found: dict[str, Counter[str]] = {}
        for record in self.records:
            if record.outputs and (record.split or record.label):
                found.setdefault(record.split, Counter())[record.label] += 1
        return {split: dict(sorted(counter.items())) for split, counter in found.items()}

    def write(self, folder: Path) -> None:
        """Whole or not at all; an item a line."""
        head = {"dataset": self.dataset, "options": self.options, "generated": self.generated}
        numbers = {"counts": self.counts(), "skipped": sum(bool(r.why) for r in self.records)}
        start = json.dumps({**head, **numbers}, ensure_ascii=False, indent=1).rstrip("\n}")
        items = ",\n".join(record.line() for record in self.records)
        write_text(folder / MANIFEST, f'{start},\n "items": [\n{items}\n]}}\n')


def read_manifest(folder: Path) -> Manifest | None:
    """None if nothing was prepared there, or not to the end.

    Raises:
        UserError: the file cannot be read.
    """
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text("utf-8"))
        records = [parse_record(item) for item in found["items"]]
        return Manifest(found["dataset"], found["options"], found["generated"], records)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error!r}); delete the folder and prepare it again"
        ) from error


class Journal:
    """The records of an unfinished preparation, in the order in which they were made.

    Its first line says which preparation it is; a line that a kill cut short is not counted.
    """

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        self.path, self.head = folder / JOURNAL, json.loads(json.dumps(head))

    def read(self) -> dict[str, Record] | None:
        """By name; none if there is no journal. Raises: UserError: it is that of another preparation."""
        found: dict[str, Record] = {}
        try:
            first, *lines = self.path.read_text("utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return None
        with suppress(ValueError):
            before = json.loads(first)
            check_same(self.path.parent, before, self.head)
            for line in lines[:-1]:
                record = parse_record(json.loads(line))
                found[record.name] = record
        return found

    def start(self, records: Iterable[Record]) -> None:
        """Begin it, with what is known."""
        lines = [json.dumps(self.head), *(record.line() for record in records)]
        write_text(self.path, "".join(f"{line}\n" for line in lines))

    def add(self, record: Record) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{record.line()}\n")


def check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises: UserError: a folder holds what another preparation made."""
    different = [
        f"{key}={before.get(key)!r} instead of {value!r}"
        for key, value in now.items()
        if before.get(key) != value
    ]
    if different:
        raise UserError(
            f"{folder} holds what was prepared with {', '.join(different)}; choose another folder with out=, or delete it"
        )


def measure(path: Path) -> Output:
    """What there is of an output; nothing if it does not exist."""
    digest, size, files = hashlib.sha256(), 0, files_of(path)
    for name, file in files:
        content = file.read_bytes()
        size += len(content)
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return Output(len(files), size, digest.hexdigest())


def is_there(path: Path, output: Output) -> bool:
    """Whether an output has the files and bytes that it had; opens none."""
    if path.is_dir():
        sizes = [entry.stat().st_size for entry in os.scandir(path)]
    else:
        sizes = [path.stat().st_size] if path.is_file() else []
    return (len(sizes), sum(sizes)) == (output.files, output.bytes)


def files_of(path: Path) -> list[tuple[str, Path]]:
    """The files of an output with their names in it, sorted."""
    if path.is_dir():
        return sorted((file.name, file) for file in path.iterdir())
    return [("", path)] if path.is_file() else []
