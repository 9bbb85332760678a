"""AVE: 4,143 ten-second clips of AudioSet with an event that is heard and seen, 28 classes (Tian et al., 2018)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrobust.data.families.clips import Clip, ClipModule, frames_in, note_absent, without
from mmrobust.data.files.hdf5 import Tables
from mmrobust.data.files.lists import parsed, read_lines
from mmrobust.data.spec import DataSpec
from mmrobust.data.split import Split
from mmrobust.errors import Problems, UserError

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


class AVE(ClipModule):
    """`audio`, a log spectrogram (1, 257, 625), and `visual`, frames (3, T, 224, 224).

    Layout: `Audio/<id>.wav` and `Image-01-FPS/<id>/*.jpg`, extracted from `AVE/<id>.mp4`; and `trainSet.txt`,
    `valSet.txt`, `testSet.txt` (3339, 402 and 402 rows), or instead of the three `Annotations.txt` and
    `{train,val,test}_order.h5`, which give its rows by number. A sample is called `<split>/<id>`. If an id is listed
    twice in a split, under two classes, the first row counts (as in ARL's code; OGM-GE keeps the last).

    Args:
        part: `clip`, all ten seconds, or `event`, from the annotated start to its end: the sound is cut, then tiled
            to `seconds`; frames are taken from `Image-01-FPS-SE`, which holds only those, if it exists, else those
            of that time. A row whose event lasts 0 s keeps its whole clip.
        drop_overlap: leave out of train what is also in val or test (18 ids, 8 of them in test, all with another
            class there).
    """

    def __init__(self, *, part: str, drop_overlap: bool, **base: Any) -> None:
        super().__init__(**base)
        self.part, self.drop_overlap = part, drop_overlap

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        if self.part not in ("clip", "event"):
            raise UserError(f"data.part={self.part} is not a part of AVE's clips; use clip or event")
        root = Path(self.root)
        expected = f"where Audio, Image-01-FPS, trainSet.txt, valSet.txt and testSet.txt lie: {SOURCE}"
        with self.open_root(expected, samples="clips") as audit:
            kept = {s: first_rows(s, rows) for s, rows in read_splits(root, audit.problems).items()}
            audit.check()
            overlap = [v for v in kept["train"] if v in kept["val"] or v in kept["test"]]
            kept["train"] = without(kept["train"], overlap, self.drop_overlap, "val or test")
            cut = self.part == "event" and (root / f"{self.frames_folder}-SE").is_dir()
            folder = root / (f"{self.frames_folder}-SE" if cut else self.frames_folder)
            parts = {
                split: {f"{split}/{video}": self.clip(row, folder, cut) for video, row in of_split.items()}
                for split, of_split in kept.items()
            }
            note_absent(
                {clip.sound.stem: clip for clips in parts.values() for clip in clips.values()},
                audit.damaged,
                sounds=f"<id>.wav in {root / 'Audio'}",
                get_sounds=f"beside the folder AVE of {SOURCE}, run {self.extract_sounds('AVE/*.mp4', root / 'Audio')} "
                "(pickles in Audio-1004-SE are not read: how they were made is not published)",
                frames=f"<id>/*.jpg in {folder}",
                get_frames=f"beside the folder AVE, run {self.extract_frames('AVE/*.mp4', folder)}",
            )
        return self.described(CLASSES, parts)

    def clip(self, row: Row, folder: Path, cut: bool) -> Clip:
        """`cut`: the folder holds the event's frames only."""
        frames, sound = frames_in(folder / row.video), Path(self.root) / f"Audio/{row.video}.wav"
        part = (row.start, row.end) if self.part == "event" and row.start < row.end else None
        if part and not cut:  # the k-th frame shows second k / fps; where the video ends early, the last one
            frames = frames[row.start * self.fps : row.end * self.fps] or frames[-1:]
        return Clip(sound, frames, row.target, part)


def first_rows(split: str, rows: Sequence[Row]) -> dict[str, Row]:
    """{id: row}, each id with its first row."""
    kept: dict[str, Row] = {}
    for row in rows:
        kept.setdefault(row.video, row)
    if len(kept) < len(rows):
        log.info("%s: %d rows of ids listed before are left out", split, len(rows) - len(kept))
    return kept


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
