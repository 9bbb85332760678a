"""Kinetics-Sounds: ten-second clips of actions of Kinetics-400 that are heard and seen (Arandjelović and Zisserman, 2017)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmrobust.data.families.clips import PREPARE, Clip, ClipModule, frames_in, note_absent, without
from mmrobust.data.families.kinetics_lists import SOURCE, category, identity, listed, normalised
from mmrobust.data.held_out import with_validation
from mmrobust.data.spec import DataSpec
from mmrobust.data.split import Split
from mmrobust.errors import Problems, UserError, summarised

FOLDERS = {"train": ("train_img", "train"), "test": ("val_img", "test")}  # of visual, of audio

log = logging.getLogger(__name__)


class KineticsSounds(ClipModule):
    """`audio`, a log spectrogram (1, 129, 626), and `visual`, frames (3, T, 224, 224).

    Layout: `visual/{train_img,val_img}/Image-01-FPS/<class>/<stem>/*.jpg` and
    `audio/{train,test}/<class>/<stem>.wav`. Sound and frames are paired by their stem. The classes are the entries of
    `classes` with clips in train, in the order given: their number (31 to 34 in the literature) stands in the log
    and in the results. A sample is called `<split>/<class>/<stem>`.

    Args:
        split: `folders`, the two halves on disk; or `lists`, the rows `stem,seconds,label` of `my_train.txt` and
            `my_test.txt` (14799 and 2597), found in either half by YouTube id and start, whichever form their names
            have; their labels must agree with the class folders.
        validation: share of every class held out of train; at 0 there is no split `val`.
        drop_overlap: leave out of train the clips whose YouTube id is also in test.
        classes: names of classes, blanks or `_`; other folders are left out.
        min_frames: clips with fewer, but some, are left out (released codes: 3).
        tiled: seconds; sounds are tiled until this long, then cut. `seconds` of it are drawn in training, the middle
            is taken in testing (the released codes draw there too).
    """

    def __init__(
        self,
        *,
        split: str,
        validation: float,
        drop_overlap: bool,
        classes: Sequence[str],
        min_frames: int,
        tiled: float,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.split, self.validation, self.drop_overlap = split, validation, drop_overlap
        self.names = tuple(dict.fromkeys(normalised(name) for name in classes))
        self.min_frames, self.heard = min_frames, tiled

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        if self.split not in ("folders", "lists"):
            raise UserError(
                f"data.split={self.split} is not a split of Kinetics-Sounds; use folders or lists"
            )
        if self.heard < self.spectrogram.seconds:
            raise UserError(
                f"data.tiled={self.heard} is shorter than data.seconds={self.spectrogram.seconds}; raise it"
            )
        root = Path(self.root)
        prepare = PREPARE.format("kinetics_sounds", self.fps)
        expected = (
            f"the folder (often called kinect_sound) that holds visual/{{train_img,val_img}}/{self.frames_folder}/<class>/"
            f"<stem>/*.jpg and audio/{{train,test}}/<class>/<stem>.wav, made from the clips of {SOURCE}: "
            f"{prepare}"
        )
        with self.open_root(expected, samples="clips", folders=("visual", "audio")) as audit:
            halves = {split: self.find(split) for split in FOLDERS}
            if self.split == "lists":
                halves = listed(root, halves, audit)
            on_disk = {split: {category(clip) for clip in half.values()} for split, half in halves.items()}
            classes = tuple(name for name in self.names if name in on_disk["train"])
            strange = sorted(on_disk["test"] - {*classes})
            what = "classes with clips in test, none in train"
            audit.problems.add(what, strange, "take them out of data.classes")
            if not classes:
                none = f"none of data.classes ({summarised(self.names)}) has a clip in train under {root}"
                audit.problems.append(none)
            train, test = (
                {
                    f"{split}/{name}": replace(clip, target=classes.index(category(clip)))
                    for name, clip in half.items()
                    if category(clip) in classes
                }
                for split, half in halves.items()
            )
            self.note_absent(train | test, audit.damaged, f"run {prepare}")
        lacking = [name for name in self.names if name not in classes]
        told = "%d classes; of data.classes, not on disk: %s"
        log.info(told, len(classes), summarised(lacking) if lacking else 0)
        tested = {identity(clip.sound.stem)[0] for clip in test.values()}
        overlap = [name for name, clip in train.items() if identity(clip.sound.stem)[0] in tested]
        if self.drop_overlap and len(overlap) == len(train):
            raise UserError("every clip of train is also in test; set data.drop_overlap=false")
        train = without(train, overlap, self.drop_overlap, "test")
        targets = [clip.target for clip in train.values()]
        parts = with_validation(train, test, targets, self.validation, self.seed, "clips")
        return self.described(classes, parts)

    def folders(self, split: str) -> tuple[Path, Path]:
        """Of the frames and of the sounds."""
        visual, audio = FOLDERS[split]
        return Path(self.root, "visual", visual, self.frames_folder), Path(self.root, "audio", audio)

    def find(self, split: str) -> dict[str, Clip]:
        """What has frames or a sound, by `<class>/<stem>`; clips with too few frames are left out."""
        visual, audio = self.folders(split)
        found: dict[str, Clip] = {}
        short: list[str] = []
        for name in self.names:
            stems = {p.name for p in (visual / name).glob("[!.]*") if p.is_dir()}
            stems |= {p.stem for p in (audio / name).glob("[!.]*.wav")}
            for stem in sorted(stems):
                frames = frames_in(visual / name / stem)
                if len(frames) >= self.min_frames or not frames:  # none at all: told as a problem
                    found[f"{name}/{stem}"] = Clip(audio / name / f"{stem}.wav", frames, 0)
                else:
                    short.append(f"{name}/{stem}")
        if short:
            told = "%s: clips with fewer than %d frames are left out: %s"
            log.info(told, split, self.min_frames, summarised(short))
        return found

    def note_absent(self, clips: Mapping[str, Clip], damaged: Problems, remedy: str) -> None:
        """Adds to `damaged` what the clips lack, and the remedy."""
        note_absent(
            clips,
            damaged,
            sounds=f"<class>/<stem>.wav in {self.root}/audio/{{train,test}}",
            get_sounds=remedy,
            frames=f"<class>/<stem>/*.jpg in {self.root}/visual/{{train_img,val_img}}/{self.frames_folder}",
            get_frames="see the command for both" if damaged else remedy,
        )
