"""Kinetics-Sounds: ten-second clips of actions of Kinetics-400 that are heard and seen (Arandjelović and Zisserman, 2017)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmrobust.data.families.clips import Clip, ClipModule, audit, frames_in, with_held_out
from mmrobust.data.spec import DataSpec
from mmrobust.data.split import Split
from mmrobust.errors import Problems, UserError, summarised

FOLDERS = {"train": ("train_img", "train"), "test": ("val_img", "test")}  # of visual, of audio
LISTS = {"train": "my_train.txt", "test": "my_test.txt"}
SOURCE = "github.com/cvdfoundation/kinetics-dataset"
EXTRACT = (  # in a folder with <class>/<stem>.mp4
    'for f in */*.mp4; do s="${{f%.mp4}}"; mkdir -p {frames}/"$s" {sounds}/"${{s%/*}}"; '
    'ffmpeg -nostdin -i "$f" -vf fps={fps} -q:v 2 {frames}/"$s"/%05d.jpg -vn -ac 1 -ar {rate} {sounds}/"$s.wav"; done'
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A clip on disk: class folder, name, and where it lies."""

    category: str
    stem: str
    clip: Clip


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
        self.min_frames, self.tiled = min_frames, tiled

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        root, problems, damaged = Path(self.root), Problems(), Problems()
        if self.split not in ("folders", "lists"):
            raise UserError(
                f"data.split={self.split} is not a split of Kinetics-Sounds; use folders or lists"
            )
        if self.tiled < self.spectrogram.seconds:
            raise UserError(
                f"data.tiled={self.tiled} is shorter than data.seconds={self.spectrogram.seconds}; raise it"
            )
        absent = [name for name in ("visual", "audio") if not (root / name).is_dir()]
        if absent:
            raise UserError(
                f"data.root={root} has no folder {' or '.join(absent)}; set it, or paths.data, to the folder "
                f"(often called kinect_sound) that holds visual/{{train_img,val_img}}/Image-{self.fps:02d}-FPS/<class>/"
                f"<stem>/*.jpg and audio/{{train,test}}/<class>/<stem>.wav, made from the clips of {SOURCE}"
            )
        halves = {split: list(self.find(split)) for split in FOLDERS}
        if self.split == "lists":
            halves = self.listed(halves, problems, damaged)
        classes = tuple(name for name in self.names if any(f.category == name for f in halves["train"]))
        strange = sorted({f.category for f in halves["test"]} - set(classes))
        problems.add("classes with clips in test, none in train", strange, "take them out of data.classes")
        if not classes:
            problems.append(
                f"none of data.classes ({summarised(self.names)}) has a clip in train under {root}"
            )
        parts = {
            split: {
                f"{split}/{f.category}/{f.stem}": replace(f.clip, target=classes.index(f.category))
                for f in found
                if f.category in classes
            }
            for split, found in halves.items()
        }
        frames, sounds = self.folders("train")
        extract = EXTRACT.format(
            frames=frames.absolute(),
            sounds=sounds.absolute(),
            fps=self.fps,
            rate=self.spectrogram.sample_rate,
        )
        remedy = f"in a folder with <class>/<stem>.mp4 of {SOURCE} (here for train), run {extract}"
        audit(
            parts["train"] | parts["test"],
            damaged,
            sounds=f"<class>/<stem>.wav in {root}/audio/{{train,test}}",
            get_sounds=remedy,
            frames=f"<class>/<stem>/*.jpg in {root}/visual/{{train_img,val_img}}/Image-{self.fps:02d}-FPS",
            get_frames="see the command for both" if damaged else remedy,
        )
        self.refuse(problems, damaged)
        lacking = [name for name in self.names if name not in classes]
        log.info(
            "%d classes; of data.classes, not on disk: %s",
            len(classes),
            summarised(lacking) if lacking else 0,
        )
        train = self.without_overlap(parts["train"], parts["test"])
        return self.described(
            classes, with_held_out(train, parts["test"], self.validation, self.seed), self.tiled
        )

    def folders(self, split: str) -> tuple[Path, Path]:
        """Of the frames and of the sounds."""
        visual, audio = FOLDERS[split]
        root = Path(self.root)
        return root / "visual" / visual / f"Image-{self.fps:02d}-FPS", root / "audio" / audio

    def find(self, split: str) -> Iterator[Found]:
        """What has frames or a sound, by class and stem; too few frames are left out."""
        visual, audio = self.folders(split)
        short: list[str] = []
        for name in self.names:
            stems = {p.name for p in (visual / name).glob("[!.]*") if p.is_dir()}
            stems |= {p.stem for p in (audio / name).glob("[!.]*.wav")}
            for stem in sorted(stems):
                frames = frames_in(visual / name / stem)
                if len(frames) >= self.min_frames or not frames:  # none at all: told as a problem
                    yield Found(name, stem, Clip(audio / name / f"{stem}.wav", frames, 0))
                else:
                    short.append(f"{name}/{stem}")
        if short:
            log.info(
                "%s: clips with fewer than %d frames are left out: %s",
                split,
                self.min_frames,
                summarised(short),
            )

    def listed(
        self, halves: Mapping[str, Sequence[Found]], problems: Problems, damaged: Problems
    ) -> dict[str, list[Found]]:
        """What the two lists name, with their labels checked against the class folders."""
        disk = {identity(f.stem): f for found in halves.values() for f in found}
        rows = {split: read_list(Path(self.root) / name, problems) for split, name in LISTS.items()}
        found: dict[str, list[Found]] = {}
        for split, labels in rows.items():
            found[split] = [disk[key] for key in map(identity, labels) if key in disk]
            absent = [stem for stem in labels if identity(stem) not in disk]
            where = "no class folder of data.classes has enough frames or a sound of them"
            damaged.add(f"{LISTS[split]}: {where}", absent, f"get them from {SOURCE}")
        folder = {
            label: {disk[identity(s)].category for r in rows.values() for s in r if r[s] == label and identity(s) in disk}
            for label in {label for r in rows.values() for label in r.values()}
        }  # fmt: skip
        mixed = [f"label {label}: {' and '.join(sorted(names))}" for label, names in sorted(folder.items())
                 if len(names) > 1]  # fmt: skip
        problems.add("one label of the lists for clips in several class folders", mixed, "put them into one")
        keys = {split: {identity(stem) for stem in labels} for split, labels in rows.items()}
        both = sorted(f"{video} at {start} s" for video, start in keys["train"] & keys["test"])
        problems.add(f"in {LISTS['train']} and {LISTS['test']}", both, "take them out of one")
        return found

    def without_overlap(self, train: Mapping[str, Clip], test: Mapping[str, Clip]) -> Mapping[str, Clip]:
        """Train without the YouTube ids of test, if that is asked for; what is found is logged in any case."""
        tested = {identity(clip.sound.stem)[0] for clip in test.values()}
        overlap = [name for name, clip in train.items() if identity(clip.sound.stem)[0] in tested]
        if overlap:
            does = "leaves them out of train" if self.drop_overlap else "keeps them"
            told = "clips of train whose YouTube id is also in test: %s; data.drop_overlap=%s %s"
            log.info(told, summarised(overlap), str(self.drop_overlap).lower(), does)
        if not self.drop_overlap or not overlap:
            return train
        if len(overlap) == len(train):
            raise UserError("every clip of train is also in test; set data.drop_overlap=false")
        return {name: clip for name, clip in train.items() if name not in set(overlap)}


def normalised(name: str) -> str:
    """As class folders are called."""
    return re.sub(r"\s+", "_", name.strip())


def identity(stem: str) -> tuple[str, int]:
    """YouTube id (11 characters, `_` and `-` among them) and start (s) of `<id>_<start>_<end>` or `<id>_<start>`; of
    another name, itself and -1."""
    match = re.fullmatch(r"(.{11})_(\d+)(?:_\d+)?", stem)
    return (match[1], int(match[2])) if match else (stem, -1)


def read_list(path: Path, problems: Problems) -> dict[str, int]:
    """{stem: label} of rows `stem,seconds,label` (or `stem,label`); adds to `problems`."""
    if not path.is_file():
        problems.append(f"no {path}; put it there, or go without lists: data.split=folders")
        return {}
    labels: dict[str, int] = {}
    wrong, twice = list[str](), list[str]()
    for number, row in enumerate(path.read_text("utf-8-sig", errors="replace").splitlines(), start=1):
        fields = [field.strip() for field in row.split(",")]
        stem, label = fields[0], fields[-1]
        if stem and len(fields) > 1 and label.isdecimal():
            twice += [f"line {number}: {stem}"] if stem in labels else []
            labels[stem] = int(label)
        elif row.strip():
            wrong.append(f"line {number}: {row}")
    problems.add(f"{path}: not `stem,seconds,label`", wrong, "mend or delete them")
    problems.add(f"{path}: listed before", twice, "keep one row of each")
    if not labels and not wrong:
        problems.append(f"{path} names no clips; expected rows `stem,seconds,label`")
    return labels
