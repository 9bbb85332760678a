"""Items are made: in threads, so that nothing outlives a kill; each beside its place, where it is put when it is whole.

All is made in `<out>.partial`, which becomes `<out>` at the end. Threads suffice: what takes time (decoding, compressing,
hashing) runs without Python's lock.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrobust.data.progress import told_of
from mmrobust.errors import UserError
from mmrobust.files import short_hash
from mmrobust.prepare.plan import Item
from mmrobust.prepare.record import MANIFEST, Journal, Manifest, Record, is_there, measure

RECIPE = 1  # counts up when the same sources become other files
SCRATCH = ".making"  # in the unfinished folder: what is being made


def key_of(item: Item) -> str:
    """Changes when a source does."""
    states: list[object] = [RECIPE, sorted(item.outputs)]
    for path in item.sources:
        try:
            state = path.stat()
        except OSError:
            states.append([path.name, None])
        else:
            states.append([path.name, state.st_size, state.st_mtime_ns])
    return short_hash(states)


def is_done(item: Item, known: Mapping[str, Record], keys: Mapping[str, str], folder: Path) -> bool:
    """Whether the item need not be made; one that was skipped is skipped again as long as its sources stay the same."""
    record = known.get(item.name)
    return record is not None and record.key == keys[item.name] and is_whole(record, folder)


def is_whole(record: Record, folder: Path) -> bool:
    """Whether all is there that an item became."""
    return all(is_there(folder / path, output) for path, output in record.outputs.items())


@dataclass(frozen=True)
class Work:
    """What is made in the folder `unfinished`.

    Args:
        dataset: for messages.
        head: which preparation it is.
        unfinished: the folder.
        known: what was made before, by name.
        keys: of all items, by name.
    """

    dataset: str
    head: Mapping[str, Any]
    unfinished: Path
    known: Mapping[str, Record]
    keys: Mapping[str, str]

    @property
    def journal(self) -> Journal:
        return Journal(self.unfinished, self.head)

    @property
    def scratch(self) -> Path:
        return self.unfinished / SCRATCH

    def begin(self, folder: Path) -> None:
        """Go on with what was made, in the finished folder, too; what a killed process was at is removed."""
        if folder != self.unfinished:
            Journal(folder, self.head).start(self.known.values())
            folder.rename(self.unfinished)
        self.unfinished.mkdir(parents=True, exist_ok=True)
        self.journal.start(self.known.values())
        (self.unfinished / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def make_all(self, todo: Sequence[Item], workers: int) -> dict[str, Record]:
        """Make the items; their records by name."""
        made: dict[str, Record] = {}
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(self.make, item) for item in todo]
            try:
                for future in told_of(as_completed(futures), len(futures), f"{self.dataset}: prepared"):
                    record = future.result()
                    self.journal.add(record)
                    made[record.name] = record
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return made

    def make(self, item: Item) -> Record:
        """One item, beside its place, where it is put when it is whole. If it cannot be made, what was there before
        stays."""
        own, key = self.scratch / short_hash(item.name), self.keys[item.name]
        try:
            own.mkdir(parents=True)
            item.make(own)
            outputs = {path: measure(own / path) for path in item.outputs}
            for path in item.outputs:
                put(own / path, self.unfinished / path)
        except (UserError, OSError) as error:
            if isinstance(error, OSError) and str(error.filename) not in map(str, item.sources):
                raise
            before = self.known.get(item.name)
            kept = before.outputs if before and is_whole(before, self.unfinished) else {}
            why = f"{error} (what was made before is kept)" if kept else str(error)
            return Record(item.name, item.split, item.label, key, kept, why)
        finally:
            shutil.rmtree(own, ignore_errors=True)
        return Record(item.name, item.split, item.label, key, outputs)

    def finish(self, manifest: Manifest, out: Path) -> None:
        """The manifest is written last; then the folder gets its name."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        manifest.write(self.unfinished)
        self.journal.path.unlink(missing_ok=True)
        os.rename(self.unfinished, out)  # noqa: PTH104 (onto an empty folder, too)


def put(source: Path, target: Path) -> None:
    """Move a file or a folder to its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)
