"""CREMA-D: 7,442 spoken sentences of 91 actors, sound and face, six emotions (Cao et al., 2014)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust import keyed
from mmrobust.data import images
from mmrobust.data.audio import Spectrogram, is_lfs_pointer
from mmrobust.data.base import DataModule, DataSpec, Key, Modality, Sample, Split, hold_out
from mmrobust.errors import UserError

# Ids are like 1001_DFA_ANG_XX: actor id[:4], sentence, emotion id[9:12], level.
EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")  # the order of OGM-GE and all that build on it
SOURCE = "github.com/CheyneyComputerScience/CREMA-D"
LISTS = "data/CREMAD of github.com/GeWu-Lab/OGM-GE_CVPR2022"
EXTRACT = (  # beside VideoFlash; {}: folder, frames a second
    'for f in VideoFlash/*.flv; do d={}/$(basename "$f" .flv); mkdir -p "$d"; '
    'ffmpeg -nostdin -i "$f" -vf fps={} -q:v 2 "$d/%05d.jpg"; done'
)
Labels = dict[str, int]  # {id: class}

log = logging.getLogger(__name__)


class Clips(Split):
    """Clips and the paths of their frames; with run_seed None, for testing, nothing is random.

    All frames of a clip share one crop and one flip (OGM-GE's code draws them anew for every frame).
    """

    def __init__(
        self,
        labels: Labels,
        sounds: Path,
        frames: Mapping[str, Sequence[Path]],
        visual: Modality,
        spectrogram: Spectrogram,
        run_seed: int | None,
    ) -> None:
        self.ids, self.targets = list(labels), list(labels.values())
        self.present = np.ones((len(labels), 2), dtype=bool)
        self.sounds, self.frames = sounds, [frames[stem] for stem in labels]
        self.spectrogram, self.run_seed = spectrogram, run_seed
        _, self.count, size, _ = visual.shape
        self.pipeline = images.resize(size) if run_seed is None else images.crop_and_flip(size)

    def read(self, key: Key) -> dict[str, np.ndarray]:
        salts = None if self.run_seed is None else (self.run_seed, "frames", key.epoch, key.index)
        files = images.choose_frames(self.frames[key.index], self.count, salts)
        wave = self.spectrogram.read(self.sounds / f"{self.ids[key.index]}.wav")
        return {"audio": wave, "visual": images.read_frames(files)}

    def verify(self, index: int) -> None:
        images.read_frames(self.frames[index])  # all: which ones are drawn depends on the epoch
        self.spectrogram.read(self.sounds / f"{self.ids[index]}.wav")

    def augment(self, raw: dict[str, np.ndarray], key: Key) -> dict[str, np.ndarray]:
        seed = keyed.seed_of(self.run_seed or 0, "crop", key.epoch, key.index)
        return {**raw, "visual": images.transformed(self.pipeline, seed, images=raw["visual"])["images"]}

    def finish(self, raw: dict[str, np.ndarray], key: Key) -> Sample:
        sound = self.spectrogram.finish(self.spectrogram.magnitude(raw["audio"]))
        frames = images.normalised(raw["visual"])
        return Sample({"audio": sound, "visual": frames}, self.targets[key.index])


class CREMAD(DataModule):
    """`audio`, a log spectrogram (1, 257, 188), and `visual`, frames of the face (3, T, 224, 224).

    Layout: `AudioWAV/<id>.wav`, `Image-01-FPS/<id>/*.jpg` and OGM-GE's lists `train.csv` and `test.csv` (rows
    `id,EMOTION`; 6698 and 744 clips), which nearly all papers use. All is indexed, and checked, in `load`.

    Args:
        split: `ogm`, the two lists, in which the same actors occur; or `actor`, speaker independent: 15 % of
            the actors in either list (of AudioWAV, if there are no lists) to validate, 15 % to test.
        validation: share of every emotion that `ogm` holds out of train; at 0 there is no split `val`.
        fps: the number in `Image-01-FPS`, frames extracted per second.
        frames: T; distinct ones are drawn in training, evenly spaced ones are taken in testing.
        image_size: side in pixels; a random crop and flip in training, the whole frame in testing.
        sample_rate, seconds, n_fft, hop, standardise: see `Spectrogram`.
    """

    def __init__(
        self,
        *,
        split: str,
        validation: float,
        fps: int,
        frames: int,
        image_size: int,
        sample_rate: int,
        seconds: float,
        n_fft: int,
        hop: int,
        standardise: bool,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.split, self.validation, self.fps = split, validation, fps
        self.spectrogram = Spectrogram(sample_rate, seconds, n_fft, hop, standardise)
        self.visual = Modality("video", (3, frames, image_size, image_size))

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        if self.split not in ("ogm", "actor"):
            raise UserError(f"data.split={self.split} is not a split of CREMA-D; use ogm or actor")
        if not 0 <= self.validation < 1:
            raise UserError(f"data.validation={self.validation} is not a share of train; use 0 <= share < 1")
        root, problems = Path(self.root), list[str]()
        if not root.is_dir():
            raise UserError(
                f"data.root={root} does not exist; set it, or paths.data, to where AudioWAV, Image-01-FPS, train.csv "
                f"and test.csv lie: {SOURCE}, {LISTS}"
            )
        lists = [root / "train.csv", root / "test.csv"]
        if self.split == "actor" and not any(path.is_file() for path in lists):
            lists = [root / "AudioWAV"]
        train, *tests = (read_labels(path, problems) for path in lists)
        test = tests[0] if tests else {}
        note(problems, "in train.csv and test.csv", [s for s in train if s in test], "take them out of one")
        damaged: list[str] = []
        frames = self.index([*train, *test], damaged)
        if problems or (damaged and self.corrupt == "error"):
            problems += damaged
            if damaged and len(problems) == len(damaged):
                problems[-1] += "; or leave these clips out: data.corrupt=skip"
            raise UserError(f"data.root={root} cannot be used:\n- " + "\n- ".join(problems))
        if self.split == "actor":
            parts = by_actor(train | test, self.seed)
        else:
            parts = by_list(train, test, self.validation, self.seed)
            before, after = ({stem[:4] for stem in labels} for labels in (train, test))
            told = "%d of %d actors occur in train and test; data.split=actor keeps them apart"
            log.info(told, len(before & after), len(before | after))
        modalities = {"audio": Modality("spectrogram", self.spectrogram.shape), "visual": self.visual}
        seeds = {"train": self.run_seed}  # the others: None
        return DataSpec("classification", len(EMOTIONS), len(parts["train"]), modalities, EMOTIONS), {
            name: Clips(labels, root / "AudioWAV", frames, self.visual, self.spectrogram, seeds.get(name))
            for name, labels in parts.items()
        }

    def index(self, stems: Sequence[str], problems: list[str]) -> dict[str, list[Path]]:
        """The frames of every clip. Lists each folder once; opens no file but suspiciously small sounds."""
        sounds, folder = Path(self.root) / "AudioWAV", Path(self.root) / f"Image-{self.fps:02d}-FPS"
        files = [file for file in os.scandir(sounds) if file.name.endswith(".wav")] if sounds.is_dir() else []
        sizes = {file.name[:-4]: file.stat().st_size for file in files}
        frames = {stem: sorted((folder / stem).glob("[!.]*.jpg")) for stem in stems}
        lacking = [stem for stem in stems if stem not in sizes]
        small = [stem for stem in stems if sizes.get(stem, 1024) < 1024]
        pointers = [stem for stem in small if is_lfs_pointer(sounds / f"{stem}.wav")]
        extract = EXTRACT.format(folder.absolute(), self.fps)
        note(problems, f"no <id>.wav in {sounds}", lacking, f"get them from {SOURCE}")
        note(problems, f"only a git-LFS pointer in {sounds}", pointers, "run `git lfs pull` in its clone")
        note(
            problems,
            f"no <id>/*.jpg in {folder}",
            [s for s in stems if not frames[s]],
            f"in the clone, run {extract}",
        )
        return frames


def by_list(train: Labels, test: Labels, share: float, seed: int) -> dict[str, Labels]:
    """The splits of data.split=ogm; no `val` for a share of 0."""
    stems, (_, held) = list(train), hold_out(list(train.values()), share, seed)
    if share and not len(held):
        raise UserError(f"data.validation={share} of {len(train)} clips is none; raise it, or set 0")
    val = {stems[i]: train[stems[i]] for i in held}
    rest = {stem: label for stem, label in train.items() if stem not in val}
    return {"train": rest, "val": val, "test": test} if val else {"train": rest, "test": test}


def by_actor(labels: Labels, seed: int) -> dict[str, Labels]:
    """The splits of data.split=actor."""
    actors = np.array(sorted({stem[:4] for stem in labels}))
    if len(actors) < 3:
        raise UserError(f"data.split=actor needs 3 actors, found {len(actors)}; use data.split=ogm")
    order = actors[np.argsort(keyed.uniforms(len(actors), seed, "actors"))]
    count = max(1, round(0.15 * len(actors)))
    groups = {"train": order[2 * count :], "val": order[count : 2 * count], "test": order[:count]}
    return {n: {s: label for s, label in labels.items() if s[:4] in group} for n, group in groups.items()}


def read_labels(source: Path, problems: list[str]) -> Labels:
    """The clips of a list of rows `id,EMOTION` or of the folder AudioWAV; adds to `problems`."""
    rows: list[str] = []
    if source.is_dir():
        rows = [f"{path.stem},{path.stem[9:12]}" for path in sorted(source.glob("[!.]*.wav"))]
    elif source.is_file():
        rows = source.read_text("utf-8-sig", errors="replace").splitlines()  # some copies have a BOM
    else:
        problems.append(f"no {source}; take it from {LISTS}, or go without lists: data.split=actor")
    labels: Labels = {}
    wrong, twice = list[str](), list[str]()
    for number, row in enumerate(rows, start=1):
        stem, _, emotion = (part.strip() for part in row.partition(","))
        if stem and emotion in EMOTIONS:
            twice += [f"line {number}: {stem}"] if stem in labels else []
            labels[stem] = EMOTIONS.index(emotion)
        elif row.strip():
            wrong.append(f"line {number}: {row}")
    expected = f"`id,EMOTION` with one of {', '.join(EMOTIONS)}"
    note(problems, f"{source}: not {expected}", wrong, "mend or delete them")
    note(problems, f"{source}: listed before", twice, "keep one row of each")
    if not labels and source.exists():
        problems.append(f"{source} names no clips; expected {expected}")
    return labels


def note(problems: list[str], what: str, found: Sequence[str], remedy: str) -> None:
    """Add a problem, if anything was found to have it: how many, and the first few."""
    if found:
        few = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
        problems.append(f"{what}: {len(found)} ({few}); {remedy}")
