"""Frames of colour and depth, with a label for every pixel or the kind of scene they show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrobust.data.families import frame_augmentation
from mmrobust.data.families.frame_augmentation import Arrays
from mmrobust.data.files import images
from mmrobust.data.split import Key, Sample, Split
from mmrobust.errors import UserError

VOID = 255  # label of pixels that do not count


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


def as_classes(numbers: np.ndarray, table: np.ndarray, where: str) -> np.ndarray:
    """(H, W) uint8: what the table gives for each of the whole numbers of a label.

    Args:
        numbers: (H, W), whole, of any type.
        table: (K,) uint8: the class, or VOID, of 0 to K - 1.
        where: the label, for messages.

    Raises:
        UserError: a number is outside of the table.
    """
    whole = numbers if numbers.dtype.kind in "iu" else numbers.astype(np.int64)  # MATLAB's are often doubles
    if not np.array_equal(whole, numbers):
        raise UserError(f"{where} holds {numbers.dtype} numbers that are not whole; get the label again")
    numbers = whole
    if numbers.min(initial=0) < 0 or numbers.max(initial=0) >= len(table):
        beyond = np.unique(numbers[(numbers < 0) | (numbers >= len(table))])
        raise UserError(
            f"{where} has labels outside of 0 to {len(table) - 1}: {', '.join(map(str, beyond[:5].tolist()))}; get it "
            "again, or check data.classes and which labels these are"
        )
    return table[numbers]


def depth_map(path: Path) -> np.ndarray:
    """(H, W) float32, the numbers of an image file as they are."""
    return images.read_map(path).astype(np.float32)


def label_map(path: Path, table: np.ndarray) -> np.ndarray:
    """(H, W) uint8, classes of an image file of whole numbers, see `as_classes`."""
    return as_classes(images.read_map(path), table, str(path))


def from_one(count: int) -> np.ndarray:
    """The table of labels 1 to `count`, 0 being void: (count + 1,) uint8."""
    return np.concatenate([[VOID], np.arange(count)]).astype(np.uint8)


def median_frequency(labels: Iterable[np.ndarray], classes: int) -> list[float]:
    """A weight for each class (Eigen and Fergus, ICCV 2015): median(f) / f_c, where f_c are the pixels of class c over
    all pixels, void ones too, of the labels in which it occurs; the median is that of the classes that occur. The
    others get 1.

    Args:
        labels: (H, W) uint8 each, VOID where nothing counts.
        classes: how many there are.
    """
    pixels, of_images = np.zeros(classes), np.zeros(classes)
    for label in labels:
        counts = np.bincount(label.ravel(), minlength=VOID + 1)[:classes]
        pixels += counts
        of_images += (counts > 0) * label.size
    occurs = pixels > 0
    frequency = pixels[occurs] / of_images[occurs]
    weights = np.ones(classes)
    weights[occurs] = np.median(frequency) / frequency
    return [float(weight) for weight in weights]
