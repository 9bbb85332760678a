"""Prepare a download: in threads, so that nothing outlives a kill; what was made is not made again.

All is made in `<out>.partial`, which becomes `<out>` when it is whole. Threads suffice: what takes time (decoding,
compressing, hashing) runs without Python's lock.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmrobust.data.progress import told_of
from mmrobust.errors import DISK, UserError, printable
from mmrobust.files import expanded, short_hash
from mmrobust.prepare.plan import MARKER, Download, Item, Plan, Preparation
from mmrobust.prepare.record import (
    MANIFEST,
    Journal,
    Manifest,
    Record,
    check_same,
    is_there,
    measure,
    read_manifest,
)
from mmrobust.training.locks import locked

RECIPE = 1  # counts up when the same sources become other files
MOST_TOLD = 50  # lines of what was skipped
MOST_CLASSES = 12  # of a split that are told


def prepare(dataset: str, module: Preparation, download: Download, out: Path, workers: int) -> int:
    """Prepare a download as the folder `out`.

    Returns:
        The exit status: 1 if anything was skipped.

    Raises:
        UserError: nothing can be prepared, or not there.
    """
    began = time.monotonic()
    out = expanded(out).resolve()
    check_place(out, download.raw)
    head: dict[str, Any] = {
        "dataset": dataset,
        "options": dict(download.options),
        "generated": (download.raw / MARKER).is_file(),
    }
    unfinished = out.with_name(f"{out.name}.partial")
    with told_of_disk(out), alone(out):
        known = records_of(out, unfinished, head)
        plan = module.plan(download)
        for note in plan.notes:
            tell(f"note: {note}")
        check_complete(known, plan, out)
        folder = out if read_manifest(out) else unfinished
        keys = {item.name: key_of(item, download.raw) for item in plan.items}
        done = {item.name: known[item.name] for item in plan.items if is_done(item, known, keys, folder)}
        todo = [item for item in plan.items if item.name not in done]
        if todo or folder == unfinished:
            made = make_all(dataset, head, folder, unfinished, done, todo, keys, workers)
            records = [made.get(item.name) or done[item.name] for item in plan.items]
            if not any(record.outputs and (record.split or record.label) for record in records):
                shutil.rmtree(unfinished)
                tell_skipped({record.name: record.why for record in records})
                raise UserError(f"nothing of raw={download.raw} could be prepared; {out} was not made")
            finish(Manifest(records=records, **head), unfinished, out)
    found = read_manifest(out)
    assert found is not None
    return summarise(found, out, len(todo), time.monotonic() - began)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Raises: UserError: another process prepares that folder."""
    lock = out.with_name(f".{out.name}.lock")
    refused = f"another process prepares {out}; wait for it, or choose another folder with out="
    with locked(lock, refused=refused):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def told_of_disk(out: Path) -> Iterator[None]:
    """Raises: UserError: what a disk did within."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise UserError(
            f"{error.filename or out} cannot be written: {error.strerror}; make room or make it writable, then give the "
            "same command again, which goes on from there; or choose another folder with out="
        ) from error


def check_place(out: Path, raw: Path) -> None:
    """Raises: UserError: nothing can be written there, or something of the user's would be lost."""
    if out == raw.resolve() or out.is_relative_to(raw.resolve()):
        raise UserError(
            f"out={out} lies in raw={raw}, which stays as it is; choose a folder beside it, such as "
            f"out={raw.resolve().with_name(raw.resolve().name + '_prepared')}"
        )
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is no folder; choose another name")
    if out.is_mount():
        raise UserError(
            f"out={out} is where a disk is mounted; choose a folder below it, such as {out / 'data'}"
        )
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise UserError(
            f"out={out} holds files that were not prepared here (no {MANIFEST}); choose a folder that is empty or new. "
            "To check what is there: verify=true"
        )


def records_of(out: Path, unfinished: Path, head: Mapping[str, Any]) -> dict[str, Record]:
    """What was made before, by name."""
    before = read_manifest(out) or read_manifest(unfinished)
    from_journal = Journal(unfinished, head).read()
    if from_journal is not None:
        return from_journal
    if before is None:
        return {}
    check_same(out, vars(before), head)
    return {record.name: record for record in before.records}


def check_complete(known: Mapping[str, Record], plan: Plan, out: Path) -> None:
    """Raises: UserError: what was made before has no source any more."""
    names = {item.name for item in plan.items}
    if lost := [r.name for r in known.values() if r.outputs and r.name not in names]:
        raise UserError(
            f"{out} has {len(lost)} items that raw no longer has ({', '.join(lost[:3])}); give the complete download, or "
            "choose another folder with out="
        )


def key_of(item: Item, raw: Path) -> str:
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
    if record is None or record.key != keys[item.name]:
        return False
    return all(is_there(folder / path, output) for path, output in record.outputs.items())


def make_all(
    dataset: str,
    head: Mapping[str, Any],
    folder: Path,
    unfinished: Path,
    done: Mapping[str, Record],
    todo: Sequence[Item],
    keys: Mapping[str, str],
    workers: int,
) -> dict[str, Record]:
    """Make the items in `unfinished`, where what is done lies or is moved to; their records by name."""
    if folder != unfinished:
        Journal(folder, head).start(done.values())
        folder.rename(unfinished)
    unfinished.mkdir(parents=True, exist_ok=True)
    journal = Journal(unfinished, head)
    journal.start(done.values())
    (unfinished / MANIFEST).unlink(missing_ok=True)
    made: dict[str, Record] = {}
    if done and todo:
        tell(f"{dataset}: {len(done)} of {len(done) + len(todo)} were made before")
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(make, item, keys[item.name], unfinished) for item in todo]
        try:
            for future in told_of(as_completed(futures), len(futures), f"{dataset}: prepared"):
                record = future.result()
                journal.add(record)
                made[record.name] = record
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return made


def make(item: Item, key: str, root: Path) -> Record:
    """One item, from nothing; what a killed process left of it is removed. If it cannot be made nothing is left."""
    clear(item, root)
    try:
        item.make(root)
    except (UserError, OSError) as error:
        clear(item, root)
        if isinstance(error, OSError) and str(error.filename) not in map(str, item.sources):
            raise
        return Record(item.name, item.split, item.label, key, {}, str(error))
    outputs = {path: measure(root / path) for path in item.outputs}
    return Record(item.name, item.split, item.label, key, outputs)


def clear(item: Item, root: Path) -> None:
    for path in (root / output for output in item.outputs):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def finish(manifest: Manifest, unfinished: Path, out: Path) -> None:
    """The manifest is written last; then the folder gets its name."""
    manifest.write(unfinished)
    Journal(unfinished, {}).path.unlink(missing_ok=True)
    os.rename(unfinished, out)  # noqa: PTH104 (onto an empty folder, too)


def summarise(manifest: Manifest, out: Path, made: int, seconds: float) -> int:
    """Tell what there is; returns the exit status."""
    skipped = {record.name: record.why for record in manifest.records if record.why}
    whole = len(manifest.records) - len(skipped)
    speed = f" ({made} now, {made / seconds:.1f} a second)" if made else " (all were there)"
    print(
        f"{manifest.dataset}: {whole} of {len(manifest.records)} items prepared in {seconds:.1f} s{speed}: {out}"
    )
    for split, counts in manifest.counts().items():
        classes = [f"{label} {count}" for label, count in counts.items() if label]
        more = f", and {len(classes) - MOST_CLASSES} classes more" if len(classes) > MOST_CLASSES else ""
        told = f" ({', '.join(classes[:MOST_CLASSES])}{more})" if classes else ""
        print(printable(f"  {split}: {sum(counts.values())}{told}"))
    tell_skipped(skipped)
    more = " data.batch_size=4" if manifest.generated else ""
    more += " data.corrupt=skip" if skipped else ""
    print(f"check it:  python -m mmrobust.prepare {manifest.dataset} out={out} verify=true")
    print(f"train:     python -m mmrobust.run data={manifest.dataset} data.root={out}{more}")
    return 1 if skipped else 0


def tell_skipped(skipped: Mapping[str, str]) -> None:
    """A line for each, up to a number."""
    if not skipped:
        return
    print(f"skipped: {len(skipped)}")
    for name, why in list(skipped.items())[:MOST_TOLD]:
        print(printable(f"  {name}: {' '.join(why.split())}"))
    if len(skipped) > MOST_TOLD:
        print(f"  and {len(skipped) - MOST_TOLD} more; all stand in {MANIFEST}")


def tell(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)
