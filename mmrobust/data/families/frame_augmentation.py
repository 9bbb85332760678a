"""Augmentation of RGB-D frames: one geometry for all modalities and the label, colour for RGB alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mmrobust import keyed
from mmrobust.data.files.images import transformed

if TYPE_CHECKING:
    import albumentations as A  # imported late elsewhere: it takes seconds, and not every run needs it

HUE_AND_SATURATION = (0.9, 1.1)  # factors
VALUE = 25.0  # largest shift of the brightness, of 255
ENLARGED = 256 / 224  # side before the crop over the side after it, in scene classification

Arrays = dict[str, np.ndarray | None]  # rgb (H, W, 3) uint8, depth (H, W) float32, label (H, W) uint8


class FrameAugmentation:
    """Shared geometry for `rgb` (interpolated bilinearly), `depth` and `label` (nearest), colour jitter for `rgb`.

    If `fitted`, a frame that is larger than `size` is brought to it, as in testing. Then a transform that enlarges; a
    random crop to `size`, or, of what is not larger than that in both
    directions, a resize; jitter of hue, saturation and brightness if `colour`; a horizontal flip with probability 1/2.

    Args:
        first: albumentations' transform that comes first.
        size: (height, width) of the result.
        colour: whether colours are jittered.
        fitted: whether large frames are brought to the scale at which they are tested; else what is trained on is a
            window of them, where `size` is small.
        rescale_depth: whether depth is divided by the factor by which `first` enlarged the image, as if the camera
            had come nearer. The published recipes leave the values as they are.
    """

    def __init__(
        self,
        first: A.BasicTransform,
        size: tuple[int, int],
        *,
        colour: bool,
        fitted: bool,
        rescale_depth: bool,
    ) -> None:
        import albumentations as A

        self.first = _frames(first)
        self.crop = _frames(A.RandomCrop(*size), A.HorizontalFlip(p=0.5))
        self.resize = _frames(A.Resize(*size), A.HorizontalFlip(p=0.5))
        self.size, self.colour, self.rescale_depth = size, colour, rescale_depth
        self.fit = resized(size) if fitted else None

    def __call__(self, frame: Arrays, *salts: int | str) -> Arrays:
        """A pure function of the frame and the salts (see `keyed`); what is None stays so."""
        height, width = _shape(frame)
        if self.fit and (height > self.size[0] or width > self.size[1]):
            frame, height = moved(self.fit, 0, frame), self.size[0]
        frame = moved(self.first, keyed.seed_of(*salts, "scale"), frame)
        shape, depth = _shape(frame), frame["depth"]
        if self.rescale_depth and depth is not None:
            frame["depth"] = depth / np.float32(shape[0] / height)
        large = shape[0] > self.size[0] and shape[1] > self.size[1]
        frame = moved(self.crop if large else self.resize, keyed.seed_of(*salts, "crop"), frame)
        if self.colour and frame["rgb"] is not None:
            hue, saturation, value = keyed.uniforms(3, *salts, "colour")
            low, high = HUE_AND_SATURATION
            factors = low + (high - low) * hue, low + (high - low) * saturation
            frame["rgb"] = jittered(frame["rgb"], *factors, VALUE * (2 * value - 1))
        return frame


def segmentation(
    size: tuple[int, int], scale: tuple[float, float], rescale_depth: bool, *, fitted: bool
) -> FrameAugmentation:
    """The recipe of ESANet, MMANet and DMRNet: both sides times one factor drawn uniformly from `scale`, then crop,
    colour jitter and flip. Theirs is not `fitted`: in the sizes that they publish it need not be."""
    import albumentations as A

    low, high = scale
    first = A.RandomScale((low - 1, high - 1), cv2.INTER_LINEAR, cv2.INTER_NEAREST, p=1)
    return FrameAugmentation(first, size, colour=True, fitted=fitted, rescale_depth=rescale_depth)


def scene(size: tuple[int, int]) -> FrameAugmentation:
    """The recipe of QMF and TMC for scenes: resized to 256/224 of the size, then crop and flip."""
    import albumentations as A

    first = A.Resize(round(ENLARGED * size[0]), round(ENLARGED * size[1]))
    return FrameAugmentation(first, size, colour=False, fitted=False, rescale_depth=False)


def resized(size: tuple[int, int]) -> A.Compose:
    """For testing: the whole frame at (height, width), whatever its aspect ratio; for `moved`."""
    import albumentations as A

    return _frames(A.Resize(*size))


def moved(pipeline: A.Compose, seed: int, frame: Arrays) -> Arrays:
    """The frame after a pipeline of this module, drawn from `seed`."""
    targets = {name: frame[part] for name, part in TARGETS.items() if frame.get(part) is not None}
    targets.setdefault("image", np.zeros((*_shape(frame), 3), np.uint8))  # albumentations asks for one
    found = transformed(pipeline, seed, **targets)  # type: ignore[arg-type]
    return {part: found[name] if frame.get(part) is not None else None for name, part in TARGETS.items()}


def jittered(rgb: np.ndarray, hue: float, saturation: float, value: float) -> np.ndarray:
    """(H, W, 3) uint8: hue and saturation, in [0, 1], times a factor, brightness, in [0, 255], plus a shift; all
    clipped to their range."""
    hsv = cv2.cvtColor(
        rgb.astype(np.float32) / 255, cv2.COLOR_RGB2HSV
    )  # hue in degrees, the others in [0, 1]
    hsv[..., 0] = np.clip(hsv[..., 0] * hue, 0, 360)
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
    hsv[..., 2] = np.clip(hsv[..., 2] + value / 255, 0, 1)
    return np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).astype(np.uint8)


TARGETS = {"image": "rgb", "depth": "depth", "mask": "label"}  # albumentations' name: ours


def _frames(*transforms: Any) -> A.Compose:
    import albumentations as A

    return A.Compose(list(transforms), additional_targets={"depth": "mask"})  # moved as labels are: nearest


def _shape(frame: Arrays) -> tuple[int, int]:
    height, width = next(x for part in TARGETS.values() if (x := frame.get(part)) is not None).shape[:2]
    return height, width
