"""AVE: 4,143 ten-second clips of AudioSet with an event that is heard and seen, 28 classes (Tian et al., 2018)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmrobust.data.families.ave_lists import CLASSES, SOURCE, Row, read_splits
from mmrobust.data.families.clips import PREPARE, Clip, ClipModule, frames_in, note_absent, without
from mmrobust.data.spec import DataSpec
from mmrobust.data.split import Split
from mmrobust.errors import UserError

log = logging.getLogger(__name__)


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
            prepare = PREPARE.format("ave", self.fps)
            note_absent(
                {clip.sound.stem: clip for clips in parts.values() for clip in clips.values()},
                audit.damaged,
                sounds=f"<id>.wav in {root / 'Audio'}",
                get_sounds=f"run {prepare} on {SOURCE} (pickles in Audio-1004-SE are not read: how they were made is not "
                "published)",
                frames=f"<id>/*.jpg in {folder}",
                get_frames=f"run {prepare}" + (", then keep those of the events" if cut else ""),
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
