"""AVE: 4,143 ten-second clips of AudioSet with an event that is heard and seen, 28 classes (Tian et al., 2018)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust.data.families.clips import EXTRACT_FRAMES, EXTRACT_SOUNDS, Clip, ClipModule, audit, frames_in
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
        root, problems, damaged = Path(self.root), Problems(), Problems()
        if not root.is_dir():
            raise UserError(
                f"data.root={root} does not exist; set it, or paths.data, to where Audio, Image-01-FPS, trainSet.txt, "
                f"valSet.txt and testSet.txt lie: {SOURCE}"
            )
        rows = read_splits(root, problems)
        kept = {split: first_rows(split, rows) for split, rows in rows.items()}
        overlap = [v for v in kept.get("train", {}) if v in kept["val"] or v in kept["test"]]
        if overlap:
            told = "in train and also in val or test: %s; data.drop_overlap=%s %s"
            does = "leaves them out of train" if self.drop_overlap else "keeps them"
            log.info(told, ", ".join(overlap), str(self.drop_overlap).lower(), does)
        if self.drop_overlap:
            kept["train"] = {v: row for v, row in kept.get("train", {}).items() if v not in overlap}
        folder = root / f"Image-{self.fps:02d}-FPS"
        cut = self.part == "event" and Path(f"{folder}-SE").is_dir()
        folder = Path(f"{folder}-SE") if cut else folder
        parts = {
            split: {f"{split}/{video}": self.clip(row, folder, cut) for video, row in rows.items()}
            for split, rows in kept.items()
        }
        sounds = (root / "Audio").absolute()
        audit(
            {clip.sound.stem: clip for clips in parts.values() for clip in clips.values()},
            damaged,
            sounds=f"<id>.wav in {root / 'Audio'}",
            get_sounds=f"beside the folder AVE of {SOURCE}, run "
            + EXTRACT_SOUNDS.format(sounds, "AVE/*.mp4", self.spectrogram.sample_rate, sounds, ".mp4")
            + " (pickles in Audio-1004-SE are not read: how they were made is not published)",
            frames=f"<id>/*.jpg in {folder}",
            get_frames="beside the folder AVE, run "
            + EXTRACT_FRAMES.format("AVE/*.mp4", folder.absolute(), ".mp4", self.fps),
        )
        self.refuse(problems, damaged)
        return self.described(CLASSES, parts, self.spectrogram.seconds)

    def clip(self, row: Row, folder: Path, cut: bool) -> Clip:
        """`cut`: the folder holds the event's frames only."""
        frames, sound = frames_in(folder / row.video), Path(self.root) / f"Audio/{row.video}.wav"
        if self.part == "clip" or row.start == row.end:
            return Clip(sound, frames, row.target)
        if not cut:  # the k-th frame shows second k / fps; where the video ends early, the last one
            frames = frames[row.start * self.fps : row.end * self.fps] or frames[-1:]
        return Clip(sound, frames, row.target, (row.start, row.end))


def first_rows(split: str, rows: Sequence[Row]) -> dict[str, Row]:
    """{id: row}, each id with its first row."""
    kept: dict[str, Row] = {}
    for row in rows:
        kept.setdefault(row.video, row)
    if len(kept) < len(rows):
        log.info("%s: %d rows of ids listed before are left out", split, len(rows) - len(kept))
    return kept


def read_splits(root: Path, problems: Problems) -> dict[str, list[Row]]:
    """The rows of train, val and test; empty if there is a problem, which is added to `problems`."""
    lists = {split: root / name for split, name in LISTS.items()}
    annotations, orders = root / "Annotations.txt", {split: root / f"{split}_order.h5" for split in LISTS}
    if any(path.is_file() for path in lists.values()) or not annotations.is_file():
        absent = [path.name for path in lists.values() if not path.is_file()]
        problems.add(f"no lists in {root}", absent, f"they are in {SOURCE}")
        found = {split: read_rows(path, problems) for split, path in lists.items() if path.is_file()}
    else:
        absent = [path.name for path in orders.values() if not path.is_file()]
        where = "they are in the folder data of github.com/YapengTian/AVE-ECCV18"
        problems.add(
            f"no split beside {annotations}",
            absent,
            f"{where}; or take trainSet.txt etc. from the zip",
        )
        rows = read_rows(annotations, problems)
        found = {} if absent else {s: ordered(rows, path, problems) for s, path in orders.items()}
        log.info("splits from %s and *_order.h5", annotations)
    return {} if problems else found


def ordered(rows: Sequence[Row], path: Path, problems: Problems) -> list[Row]:
    """The rows whose numbers, from 0, a file `*_order.h5` holds."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f"{path.name} is read with h5py, which is not installed; run `pip install h5py`, or put trainSet.txt, "
            f"valSet.txt and testSet.txt into {path.parent}"
        ) from error
    try:
        with h5py.File(path) as file:
            numbers = np.asarray(file["order"][:])
    except (OSError, KeyError) as error:
        problems.append(f"{path} is not an HDF5 file with the array 'order' ({error}); get it again")
        return []
    beyond = [str(n) for n in numbers if not 0 <= n < len(rows)]
    problems.add(f"{path}: numbers beyond the {len(rows)} rows", beyond, "get both files again")
    return [] if beyond else [rows[n] for n in numbers]


def read_rows(path: Path, problems: Problems) -> list[Row]:
    """Lines `Category&VideoID&Quality&StartTime&EndTime`, with or without these words as a header (class names hold
    commas and blanks); adds to `problems`."""
    rows, wrong = list[Row](), list[str]()
    for number, line in enumerate(path.read_text("utf-8-sig", errors="replace").splitlines(), start=1):
        fields = [field.strip() for field in line.split("&")]
        if not line.strip() or fields[0] == "Category":
            continue
        try:
            category, video, _, start, end = fields
            row = Row(CLASSES.index(category), video, int(start), int(end))
        except ValueError:
            row = None
        if row and row.video and 0 <= row.start <= row.end <= SECONDS:
            rows.append(row)
        else:
            wrong.append(f"line {number}: {line}")
    expected = "`Category&VideoID&Quality&StartTime&EndTime` with one of AVE's 28 classes and seconds 0 to 10"
    problems.add(f"{path}: not {expected}", wrong, "mend or delete them")
    if not rows and not wrong:
        problems.append(f"{path} names no clips; expected lines {expected}")
    return rows
