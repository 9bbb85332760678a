"""The lists of clips that AVE comes with. Imports no torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrobust.data.files.hdf5 import Tables
from mmrobust.data.files.lists import parsed, read_lines
from mmrobust.errors import Problems

# The order of the dataset's own features; it is that of the first appearance in Annotations.txt.
CLASSES = (
    "Church bell", "Male speech, man speaking", "Bark", "Fixed-wing aircraft, airplane", "Race car, auto racing",
    "Female speech, woman speaking", "Helicopter", "Violin, fiddle", "Flute", "Ukulele", "Frying (food)", "Truck",
    "Shofar", "Motorcycle", "Acoustic guitar", "Train horn", "Clock", "Banjo", "Goat", "Baby cry, infant cry", "Bus",
    "Chainsaw", "Cat", "Horse", "Toilet flush", "Rodents, rats, mice", "Accordion", "Mandolin",
)  # fmt: skip
SOURCE = "AVE_Dataset.zip, see github.com/YapengTian/AVE-ECCV18"
ORDERS = (
    "they are in the folder data of github.com/YapengTian/AVE-ECCV18; or take trainSet.txt etc. from the zip"
)
LISTS = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}
SECONDS = 10  # of every clip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """A line of a list: class, YouTube id, and when the event starts and ends (s)."""

    target: int
    video: str
    start: int
    end: int


def read_splits(root: Path, problems: Problems) -> dict[str, list[Row]]:
    """The rows of train, val and test. Adds to `problems`."""
    annotations = root / "Annotations.txt"
    by_number = annotations.is_file() and not any((root / name).is_file() for name in LISTS.values())
    paths = {s: root / (f"{s}_order.h5" if by_number else name) for s, name in LISTS.items()}
    absent = [path.name for path in paths.values() if not path.is_file()]
    there = {split: path for split, path in paths.items() if path.is_file()}
    if not by_number:
        problems.add(f"no lists in {root}", absent, f"they are in {SOURCE}")
        return {split: read_rows(path, problems) for split, path in there.items()}
    log.info("splits from %s and *_order.h5", annotations)
    problems.add(f"no split beside {annotations}", absent, ORDERS)
    rows = read_rows(annotations, problems)
    return {split: ordered(rows, path, problems) for split, path in there.items()}


def ordered(rows: Sequence[Row], path: Path, problems: Problems) -> list[Row]:
    """The rows whose numbers, from 0, a file `*_order.h5` holds. Adds to `problems`."""
    numbers = Tables(path).array("order")[:]
    beyond = [str(n) for n in numbers if not 0 <= n < len(rows)]
    problems.add(f"{path}: numbers beyond the {len(rows)} rows", beyond, "get both files again")
    return [] if beyond else [rows[n] for n in numbers]


def read_rows(path: Path, problems: Problems) -> list[Row]:
    """Lines `Category&VideoID&Quality&StartTime&EndTime`, with or without these words as a header (class names hold
    commas and blanks). Adds to `problems`."""

    def parse(line: str) -> Row | None:
        fields = [field.strip() for field in line.split("&")]
        if fields[0] == "Category":
            return None
        category, video, _, start, end = fields
        row = Row(CLASSES.index(category), video, int(start), int(end))
        if not (video and 0 <= row.start <= row.end <= SECONDS):
            raise ValueError
        return row

    expected = "`Category&VideoID&Quality&StartTime&EndTime` with one of AVE's 28 classes and seconds 0 to 10"
    return list(parsed(path, read_lines(path), parse, problems, expected=expected).values())
