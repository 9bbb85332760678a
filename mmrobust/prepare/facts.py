"""What a prepared folder holds, beside what is officially known of the dataset: one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import soundfile

from mmrobust.data.files import images
from mmrobust.data.progress import told, told_of
from mmrobust.errors import UserError, printable, summarised
from mmrobust.prepare.record import JOURNAL, MANIFEST, Manifest, measure

MOST_VALUES = 3  # of one kind that are told


@dataclass(frozen=True)
class Fact:
    """A line of the table.

    Args:
        what: it is about.
        official: what is known; none, if nothing is.
        found: what there is.
        holds: whether they agree; None where nothing is known.
        amount: it is about how many there are, so that it need not hold of a generated dataset.
    """

    what: str
    official: str
    found: str
    holds: bool | None
    amount: bool = False


def told_only(what: str, found: str) -> Fact:
    """Of which nothing is officially known."""
    return Fact(what, "", found, None)


def count(what: str, official: int, found: int) -> Fact:
    return Fact(what, str(official), str(found), official == found, amount=True)


def counts(what: str, official: Mapping[str, int], found: Mapping[str, int]) -> Fact:
    """Of classes, or of other kinds: all of them are compared, those that differ are told."""
    differ = [
        f"{name} {found.get(name, 0)} of {official.get(name, 0)}"
        for name in {**official, **found}
        if found.get(name, 0) != official.get(name, 0)
    ]
    told_all = f"{sum(found.values())} in {len([n for n in found.values() if n])}"
    more = f"; differ: {summarised(differ)}" if differ else ""
    known = f"{sum(official.values())} in {len(official)}"
    return Fact(what, known, told_all + more, not differ, amount=True)


def none(what: str, found: Sequence[str]) -> Fact:
    """There should be none."""
    return Fact(what, "0", summarised(found) if found else "0", not found)


def alike(what: str, official: str, found: Iterable[str], *, amount: bool = False) -> Fact:
    """All should have one value."""
    values = Counter(found)
    told_all = ", ".join(
        f"{value} ({number})" if len(values) > 1 else value
        for value, number in values.most_common(MOST_VALUES)
    )
    more = f", {len(values) - MOST_VALUES} more" if len(values) > MOST_VALUES else ""
    return Fact(
        what, official, told_all + more or "none", set(values) == {official} if official else None, amount
    )


def spread(what: str, values: Sequence[float], unit: str = "") -> Fact:
    """From the least to the largest."""
    found = f"{min(values):.4g} to {max(values):.4g}{unit}" if values else "none"
    return told_only(what, found)


def sounds(paths: Sequence[Path], rate: str) -> list[Fact]:
    """Of sound files: those that cannot be read, rate (Hz), length. `rate`: the official one, or none."""
    bad, rates, seconds = list[str](), list[str](), list[float]()
    for path in told(paths, "looked at sounds"):
        try:
            info = soundfile.info(str(path))
            rates.append(str(info.samplerate))
            seconds.append(info.frames / info.samplerate)
        except soundfile.SoundFileError:
            bad.append(path.name)
    found = none("sounds that cannot be read", bad)
    return [found, alike("rate of sounds (Hz)", rate, rates), spread("length of sounds", seconds, " s")]


def pictures(
    paths: Sequence[Path], what: str, size: str, depth: str = "", *, amount: bool = False
) -> list[Fact]:
    """Of image files: those that cannot be read, size (height × width), type of numbers if `depth` is one."""
    bad, sizes, types = list[str](), list[str](), list[str]()
    for path in told(paths, f"looked at {what}"):
        try:
            shape, kind = images.header(path)
            sizes.append(f"{shape[0]} × {shape[1]}")
            types.append(str(kind))
        except UserError:
            bad.append(path.name)
    found = [none(f"{what} that cannot be read", bad), alike(f"size of {what}", size, sizes, amount=amount)]
    return [*found, alike(f"numbers of {what}", depth, types)] if depth else found


def clips(sounds_of: Mapping[str, Path], frames_of: Mapping[str, Path], rate: str) -> list[Fact]:
    """Of the sound file and the folder of frames of every clip, by name."""
    frames = {name: sorted(folder.glob("[!.]*.jpg")) for name, folder in frames_of.items()}
    there = [path for path in sounds_of.values() if path.is_file()]
    return [
        none("clips without a sound", [name for name, path in sounds_of.items() if not path.is_file()]),
        none("clips without frames", [name for name, found in frames.items() if not found]),
        *sounds(there, rate),
        spread("frames a clip", [len(found) for found in frames.values() if found]),
        *pictures([found[0] for found in frames.values() if found], "first frames", ""),
    ]


def maps(paths: Sequence[Path], what: str, largest: int) -> Fact:
    """Of images of labels: those with numbers beyond the largest, or that cannot be read."""
    bad = list[str]()
    for path in told(paths, f"looked into {what}"):
        try:
            beyond = images.read_map(path).max(initial=0) > largest
        except UserError:
            beyond = True
        if beyond:
            bad.append(path.name)
    return none(f"{what} with numbers beyond {largest}", bad)


def of_record(root: Path, manifest: Manifest | None, workers: int) -> list[Fact]:
    """What the manifest says is compared with what is there, byte by byte."""
    if manifest is None:
        return [told_only(MANIFEST, "none: not prepared by this command, so there are no checksums")]
    skipped = [record.name for record in manifest.records if record.why]
    outputs = {path: output for record in manifest.records for path, output in record.outputs.items()}
    paths = list(outputs)
    with ThreadPoolExecutor(workers) as pool:
        measured = pool.map(lambda path: measure(root / path), paths)
        states = dict(zip(paths, told_of(measured, len(paths), "checksums"), strict=True))
    lost = [path for path in paths if not states[path].files]
    changed = [path for path in paths if states[path].files and states[path] != outputs[path]]
    return [
        told_only("made by `prepare synthetic`", "yes" if manifest.generated else "no"),
        none("items that were skipped", skipped),
        none(f"outputs of {MANIFEST} that are absent", lost),
        none("outputs with other contents (sha256)", changed),
        none("traces of an unfinished preparation", [JOURNAL] if (root / JOURNAL).exists() else []),
    ]


def show(facts: Sequence[Fact], generated: bool) -> bool:
    """Print the table; whether all holds. Of a generated dataset, amounts need not."""
    rows = [("", "what", "official", "found")]
    for fact in facts:
        excused = generated and fact.amount and fact.holds is False
        word = {None: "", True: "yes", False: "generated" if excused else "NO"}[fact.holds]
        rows.append((word, fact.what, fact.official, fact.found))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
        print(printable("  ".join(cells).rstrip()))
    return all(fact.holds is not False or (generated and fact.amount) for fact in facts)
