"""Recordings of actions: a depth video, a skeleton and an inertial sensor that saw the same stretch of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmrobust import keyed
from mmrobust.data.families.depth_video import cropped_video, normalised_depth
from mmrobust.data.families.motion import (
    CHANNELS,
    JOINTS,
    normalised_skeleton,
    read_inertial,
    read_skeleton,
    resampled,
)
from mmrobust.data.spec import Modality
from mmrobust.data.split import Key, Sample, Split
from mmrobust.errors import UserError, summarised

MODALITIES = ("depth", "skeleton", "inertial")


@dataclass(frozen=True)
class Take:
    """One recording: action from 1, subject, and a file for every modality that has one."""

    action: int
    subject: int
    files: Mapping[str, Path]


@dataclass(frozen=True)
class Signal:
    """From files to inputs; see conf/data/utd_mhad.yaml."""

    frames: int
    size: int
    skeleton_steps: int
    inertial_steps: int
    jitter: float
    motion: bool
    cache: Path | None

    @property
    def modalities(self) -> dict[str, Modality]:
        return {
            "depth": Modality("video", (1, self.frames, self.size, self.size)),
            "skeleton": Modality("sequence", (3 * JOINTS, self.skeleton_steps)),
            "inertial": Modality("sequence", (CHANNELS, self.inertial_steps)),
        }


class Actions(Split):
    """One split of recordings; with run_seed None, for testing, nothing is random.

    All modalities of a sample show the same stretch of time. `raw` holds them physically: `depth` (T, H, W; with `motion` one frame more) in metres,
    0 where nothing was seen, `skeleton` (20, 3, T) in metres, `inertial` (6, T); None where there is no file.
    """

    def __init__(self, takes: Mapping[str, Take], signal: Signal, run_seed: int | None) -> None:
        self.ids, self.takes = list(takes), list(takes.values())
        self.targets = [take.action - 1 for take in self.takes]
        self.present = np.array([[m in take.files for m in MODALITIES] for take in self.takes]).reshape(-1, 3)
        self.signal, self.run_seed = signal, run_seed
        self.mean, self.std = np.zeros((CHANNELS, 1)), np.ones((CHANNELS, 1))
        self.sequences: dict[tuple[int, str], np.ndarray] = {}  # small, and asked for in every epoch

    def read(self, key: Key) -> dict[str, np.ndarray | None]:
        start, end = self.stretch(key)
        raw: dict[str, np.ndarray | None] = dict.fromkeys(MODALITIES)
        for m, path in self.takes[key.index].files.items():
            if m == "depth":
                video = cropped_video(path, "d_depth", self.signal.size, self.signal.cache)
                count = self.signal.frames + self.signal.motion  # one more has as many differences
                moments = start + (end - start) * (np.arange(count) + 0.5) / count
                raw[m] = video[(moments * len(video)).astype(int)].astype(np.float32) / 1000
            else:
                steps = self.signal.skeleton_steps if m == "skeleton" else self.signal.inertial_steps
                raw[m] = resampled(self.sequence(key.index, m), steps, start, end)
        return raw

    def stretch(self, key: Key) -> tuple[float, float]:
        """The part of the recording that is shown, in shares of its length: all of it in testing."""
        if self.run_seed is None or not self.signal.jitter:
            return 0.0, 1.0
        first, last = keyed.uniforms(2, self.run_seed, "stretch", key.epoch, key.index) * self.signal.jitter
        return float(first), float(1 - last)

    def sequence(self, index: int, modality: str) -> np.ndarray:
        """`skeleton` (20, 3, N) or `inertial` (6, N), as recorded."""
        if (index, modality) not in self.sequences:
            read = read_skeleton if modality == "skeleton" else read_inertial
            self.sequences[index, modality] = read(self.takes[index].files[modality])
        return self.sequences[index, modality]

    def finish(self, raw: dict[str, np.ndarray | None], key: Key) -> Sample:
        inputs: dict[str, torch.Tensor | None] = dict.fromkeys(MODALITIES)
        if (depth := raw["depth"]) is not None:
            nearness = normalised_depth(depth)
            inputs["depth"] = tensor((np.diff(nearness, axis=0) if self.signal.motion else nearness)[None])
        if (skeleton := raw["skeleton"]) is not None:
            inputs["skeleton"] = tensor(normalised_skeleton(skeleton).reshape(3 * JOINTS, -1))
        if (inertial := raw["inertial"]) is not None:
            inputs["inertial"] = tensor((inertial - self.mean) / self.std)
        return Sample(inputs, self.targets[key.index])


def inertial_statistics(train: Actions, skip: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the six channels over the training recordings, (6, 1) each.

    Raises:
        UserError: a file is damaged and may not be skipped.
    """
    found, damaged = [], list[str]()
    for i in np.flatnonzero(train.present[:, MODALITIES.index("inertial")]):
        try:
            found.append(train.sequence(int(i), "inertial"))
        except UserError as error:
            damaged.append(str(error))
    if damaged and not skip:
        raise UserError(f"{summarised(damaged)}, or leave out such samples with data.corrupt=skip")
    if not found:
        return np.zeros((CHANNELS, 1)), np.ones((CHANNELS, 1))
    every = np.concatenate(found, 1)
    return every.mean(1, keepdims=True), np.maximum(every.std(1, keepdims=True), 1e-6)


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
