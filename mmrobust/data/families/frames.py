"""Frames of colour and depth, with a label for every pixel or the kind of scene they show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrobust.data.families import frame_augmentation
from mmrobust.data.families.frame_augmentation import Arrays
from mmrobust.data.families.maps import VOID
from mmrobust.data.files import images
from mmrobust.data.split import Key, Sample, Split
from mmrobust.errors import UserError


@dataclass(frozen=True)
class Frame:
    """Where the parts of a sample lie, as its `Source` understands it: a file, a row of a table; None: absent."""

    rgb: Any
    depth: Any
    label: Any = None
    scene: int = -1  # the class of task=scene


@dataclass(frozen=True)
class Source:
    """How the parts of a frame are read from where they lie; each raises a UserError that names the place.

    `rgb` gives (H, W, 3) uint8, `depth` (H, W) float32 in the dataset's unit, 0 where there is none, `label` (H, W)
    uint8: classes from 0, VOID where nothing counts.
    """

    rgb: Callable[[Any], np.ndarray]
    depth: Callable[[Any], np.ndarray]
    label: Callable[[Any], np.ndarray]
    tables: tuple[Path, ...] = ()  # files that labels come from, other than those that frames name


@dataclass(frozen=True)
class Statistics:
    """Of depth, in the dataset's unit. `raw`: pixels without depth are 0 after normalising too; else they are
    normalised like all others."""

    mean: float
    std: float
    raw: bool

    def normalised(self, depth: np.ndarray) -> Tensor:
        """(H, W) -> (1, H, W) float32."""
        normal = (depth - np.float32(self.mean)) / np.float32(self.std)
        if self.raw:
            normal[depth == 0] = 0
        return torch.from_numpy(normal.astype(np.float32)).unsqueeze(0)


class Frames(Split):
    """One split of frames; with run_seed None, for testing, nothing is random and labels keep their own size.

    Args:
        frames: {id: frame}.
        size: (height, width) of the inputs.
        scenes: classes of scenes are the targets, not labels of pixels.
        augmented: for training.
    """

    def __init__(
        self,
        frames: Mapping[str, Frame],
        source: Source,
        statistics: Statistics,
        size: tuple[int, int],
        scenes: bool,
        augmented: frame_augmentation.FrameAugmentation,
        run_seed: int | None,
    ) -> None:
        self.ids, self.frames = list(frames), list(frames.values())
        self.targets = [frame.scene for frame in self.frames] if scenes else []
        self.present = np.array([(f.rgb is not None, f.depth is not None) for f in self.frames], dtype=bool)
        self.source, self.statistics, self.scenes = source, statistics, scenes
        self.augmented, self.run_seed = augmented, run_seed
        self.resize = frame_augmentation.resized(size)

    def read(self, key: Key) -> Arrays:
        """`rgb` (H, W, 3) uint8, `depth` (H, W) float32, `label` (H, W) uint8; None what is absent or not needed.

        Raises:
            UserError: a part cannot be read, parts differ in size, or no pixel has a class.
        """
        frame, source = self.frames[key.index], self.source
        raw: Arrays = {
            "rgb": None if frame.rgb is None else source.rgb(frame.rgb),
            "depth": None if frame.depth is None else source.depth(frame.depth),
            "label": None if self.scenes else source.label(frame.label),
        }
        sizes = {part: x.shape[:2] for part, x in raw.items() if x is not None}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{part} {h} × {w} ({getattr(frame, part)})" for part, (h, w) in sizes.items())
            raise UserError(f"its parts differ in size (height × width): {told}; get them again")
        if raw["label"] is not None and (raw["label"] == VOID).all():
            raise UserError(
                f"no pixel of its label ({frame.label}) has a class, all are void; get the label again"
            )
        return raw

    def augment(self, raw: Arrays, key: Key) -> Arrays:
        """In training all parts are augmented, in testing the inputs are resized."""
        if self.run_seed is not None:
            return self.augmented(raw, self.run_seed, "geometry", key.epoch, key.index)
        return frame_augmentation.moved(self.resize, 0, {**raw, "label": None}) | {"label": raw["label"]}

    def corrupt(self, raw: Arrays, key: Key) -> Arrays:
        """Noise; where there is no depth, there is none with noise either."""
        noisy, depth = super().corrupt(raw, key), raw["depth"]
        return noisy if depth is None else noisy | {"depth": np.where(depth == 0, 0, noisy["depth"])}

    def finish(self, raw: Arrays, key: Key) -> Sample:
        rgb, depth, label = raw["rgb"], raw["depth"], raw["label"]
        inputs = {
            "rgb": None if rgb is None else images.normalised(rgb),
            "depth": None if depth is None else self.statistics.normalised(depth),
        }
        if label is None:
            return Sample(inputs, self.targets[key.index])
        return Sample(inputs, torch.from_numpy(label.astype(np.int64)))
