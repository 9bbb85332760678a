"""What audio-visual datasets share: clips of a sound file and a folder of frames."""

from __future__ import annotations

import logging
import os
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from mmrobust import keyed
from mmrobust.data.base import DataModule
from mmrobust.data.files import images
from mmrobust.data.files.audio import Spectrogram, read_audio, wave_of
from mmrobust.data.files.folders import PICTURES
from mmrobust.data.reader import Reader, evenly, frames_of, read_clip
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Key, Sample, Split
from mmrobust.errors import Problems, UserError, summarised
from mmrobust.files import is_pointer

PREPARE = (
    "python -m mmrobust.prepare {} raw=<download> out=<data.root> fps={}"  # the dataset, frames a second
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """A sound file, frames in order, a class; and the part of the sound that counts, in seconds (None: all)."""

    sound: Path
    frames: Sequence[Path]
    target: int
    part: tuple[float, float] | None = None


Parts = Mapping[str, Mapping[str, Clip]]  # {split: {id: clip}}
T = TypeVar("T")


class Clips(Split):
    """One split of clips; with run_seed None, for testing, nothing is random.

    All frames of a clip share one crop and one flip (OGM-GE's code draws them anew for every frame). The sound is
    tiled or cut to `tiled` seconds; of these the spectrogram shows a random stretch in training, the middle in
    testing.
    """

    def __init__(
        self,
        clips: Mapping[str, Clip],
        visual: Modality,
        spectrogram: Spectrogram,
        tiled: float,
        run_seed: int | None,
    ) -> None:
        self.ids, self.clips = list(clips), list(clips.values())
        self.targets = [clip.target for clip in self.clips]
        self.present = np.ones((len(clips), 2), dtype=bool)
        self.spectrogram, self.run_seed = spectrogram, run_seed
        self.samples = round(tiled * spectrogram.sample_rate)
        _, self.count, size, _ = visual.shape
        self.pipeline = images.resize(size) if run_seed is None else images.crop_and_flip(size)

    def read(self, key: Key) -> dict[str, np.ndarray]:
        """`audio`, a waveform (samples,) float32, and `visual`, frames (T, H, W, 3) uint8."""
        clip = self.clips[key.index]
        salts = None if self.run_seed is None else (self.run_seed, "frames", key.epoch, key.index)
        files = images.choose_frames(clip.frames, self.count, salts)
        return {"audio": self.sound(clip), "visual": images.read_frames(files)}

    def sound(self, clip: Clip) -> np.ndarray:
        """The waveform of a clip's part, tiled or cut: (samples,)."""
        rate = self.spectrogram.sample_rate
        wave = read_audio(clip.sound, rate)
        if clip.part:
            start, end = clip.part
            seconds = len(wave) / rate
            wave = wave[round(start * rate) : round(end * rate)]
            if not len(wave):
                raise UserError(
                    f"{clip.sound} lasts {seconds:.1f} s, its event {start:g} to {end:g} s; get the file again"
                )
        return np.resize(wave, self.samples)

    def verify(self, index: int) -> None:
        images.read_frames(self.clips[index].frames)  # all: which ones are drawn depends on the epoch
        self.sound(self.clips[index])

    def augment(self, raw: dict[str, np.ndarray], key: Key) -> dict[str, np.ndarray]:
        """`audio` becomes the magnitude |STFT| (F, T), `visual` (T, size, size, 3)."""
        salts = (self.run_seed or 0, "crop", key.epoch, key.index)
        spare = self.samples - self.spectrogram.samples
        start = spare // 2
        if spare and self.run_seed is not None:
            start = int(keyed.uniforms(1, *salts, "sound")[0] * (spare + 1))
        wave = raw["audio"][start : start + self.spectrogram.samples]
        frames = images.transformed(self.pipeline, keyed.seed_of(*salts), images=raw["visual"])["images"]
        return {"audio": self.spectrogram.magnitude(wave), "visual": frames}

    def finish(self, raw: dict[str, np.ndarray], key: Key) -> Sample:
        frames = images.normalised(raw["visual"])
        return Sample(
            {"audio": self.spectrogram.finish(raw["audio"]), "visual": frames}, self.targets[key.index]
        )


class ClipModule(DataModule, ABC):
    """Base of datasets of clips: `audio`, a log spectrogram (1, F, T), and `visual`, frames (3, T, H, W).

    Args:
        fps: the number in `Image-01-FPS`, frames extracted per second.
        frames: T; distinct ones are drawn in training, evenly spaced ones are taken in testing.
        image_size: side in pixels; a random crop and flip in training, the whole frame in testing.
        sample_rate, seconds, n_fft, hop, standardise: see `Spectrogram`.
    """

    def __init__(
        self,
        *,
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
        self.fps = fps
        # Seconds to which sounds are tiled or cut before a stretch of `seconds` is shown.
        self.heard = seconds
        self.spectrogram = Spectrogram(sample_rate, seconds, n_fft, hop, standardise)
        self.visual = Modality("video", (3, frames, image_size, image_size))
        self.frames_folder = f"Image-{fps:02d}-FPS"

    def described(self, classes: tuple[str, ...], parts: Parts) -> tuple[DataSpec, dict[str, Split]]:
        """What `load` returns. Only train is augmented."""
        modalities = {"audio": Modality("spectrogram", self.spectrogram.shape), "visual": self.visual}
        seeds = {"train": self.run_seed}  # the others: None
        splits: dict[str, Split] = {
            name: Clips(clips, self.visual, self.spectrogram, self.heard, seeds.get(name))
            for name, clips in parts.items()
        }
        return DataSpec("classification", len(classes), len(parts["train"]), modalities, classes), splits

    def reader(self, modality: str, spec: DataSpec) -> Reader:
        """`visual` is a folder of frames, of which evenly spaced ones are taken; of a sound all counts."""
        if modality == "audio":
            rate, shown = self.spectrogram.sample_rate, self.spectrogram.samples
            samples = round(self.heard * rate)

            def finish_sound(wave: np.ndarray) -> Tensor:
                middle = np.resize(wave, samples)[(samples - shown) // 2 :][:shown]
                return self.spectrogram.finish(self.spectrogram.magnitude(middle))

            return Reader(
                spec.modalities[modality],
                lambda path: read_audio(path, rate),
                lambda raw: wave_of(raw, rate),
                finish_sound,
            )
        count, side = self.visual.shape[1:3]

        def finish(frames: np.ndarray) -> Tensor:
            chosen = evenly(frames, count)
            return images.normalised(images.transformed(images.resize(side), 0, images=chosen)["images"])

        return Reader(spec.modalities[modality], read_clip, frames_of, finish, folder=True)


def frames_in(folder: Path) -> list[Path]:
    """The frames of a clip in order of their names; none if there is no such folder."""
    return sorted(path for path in folder.glob("[!.]*") if path.suffix in PICTURES)


def note_absent(
    clips: Mapping[str, Clip],
    problems: Problems,
    *,
    sounds: str,
    get_sounds: str,
    frames: str,
    get_frames: str,
) -> None:
    """Adds to `problems` what the clips lack. Lists each folder once; opens no file but suspiciously small sounds.

    Args:
        sounds, frames: what should lie where, as the message says it.
        get_sounds, get_frames: how to get them.
    """
    sizes: dict[str, int] = {}
    for folder in sorted({clip.sound.parent for clip in clips.values()}):
        if folder.is_dir():
            sizes |= {os.fspath(folder / file.name): file.stat().st_size for file in os.scandir(folder)}
    size = {name: sizes.get(os.fspath(clip.sound), -1) for name, clip in clips.items()}
    pointers = [n for n, clip in clips.items() if 0 <= size[n] < 1024 and is_pointer(clip.sound)]
    problems.add(f"no {sounds}", [n for n in clips if size[n] < 0], get_sounds)
    problems.add(f"only a git-LFS pointer as {sounds}", pointers, "run `git lfs pull` in its clone")
    problems.add(f"no {frames}", [n for n, clip in clips.items() if not clip.frames], get_frames)


def without(train: dict[str, T], overlap: Sequence[str], drop_overlap: bool, others: str) -> dict[str, T]:
    """Train, if `drop_overlap` without the clips whose YouTube id is also in the `others`; logs them in any case."""
    if not overlap:
        return train
    does = "leaves them out of train" if drop_overlap else "keeps them"
    told = "clips of train whose YouTube id is also in %s: %s; data.drop_overlap=%s %s"
    log.info(told, others, summarised(overlap), str(drop_overlap).lower(), does)
    return {name: x for name, x in train.items() if name not in set(overlap)} if drop_overlap else train
