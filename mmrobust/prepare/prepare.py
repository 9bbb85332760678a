"""One preparation, from the checks of its folders to what is told at the end."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmrobust.errors import DISK, UserError, printable
from mmrobust.files import expanded
from mmrobust.prepare.plan import MARKER, Download, Plan, Preparation
from mmrobust.prepare.record import MANIFEST, Journal, Manifest, Record, check_same, read_manifest
from mmrobust.prepare.work import Work, is_done, key_of
from mmrobust.training.locks import locked

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
        finished = read_manifest(out)
        known = records_of(finished, out, unfinished, head)
        plan = module.plan(download)
        for note in plan.notes:
            tell(f"note: {note}")
        check_complete(known, plan, out)
        folder = out if finished else unfinished
        keys = {item.name: key_of(item) for item in plan.items}
        done = {item.name: known[item.name] for item in plan.items if is_done(item, known, keys, folder)}
        todo = [item for item in plan.items if item.name not in done]
        if todo or finished is None:
            work = Work(dataset, head, unfinished, known, keys)
            work.begin(folder)
            if done and todo:
                tell(f"{dataset}: {len(done)} of {len(keys)} were made before")
            made = done | work.make_all(todo, workers)
            finished = Manifest(records=[made[item.name] for item in plan.items], **head)
            if not finished.counts():
                shutil.rmtree(unfinished)
                tell_skipped({record.name: record.why for record in finished.records})
                raise UserError(f"nothing of raw={download.raw} could be prepared; {out} was not made")
            work.finish(finished, out)
    return summarise(finished, out, len(todo), time.monotonic() - began)


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


def records_of(
    finished: Manifest | None, out: Path, unfinished: Path, head: Mapping[str, Any]
) -> dict[str, Record]:
    """What was made before, by name."""
    if finished is None and (from_journal := Journal(unfinished, head).read()) is not None:
        return from_journal
    before = finished or read_manifest(unfinished)
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
        print(printable(f"  {split or 'in no list'}: {sum(counts.values())}{told}"))
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
