"""Cityscapes: streets of 50 cities from a car, with depth from stereo, 19 classes (Cordts et al., CVPR 2016)."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmrobust.data.audit import Audit
from mmrobust.data.families.frames import VOID, Frame, Source, Statistics, depth_map, from_one, label_map
from mmrobust.data.families.rgbd import RGBD, Contents, Parts
from mmrobust.data.files import images
from mmrobust.data.files.arrays import read_array
from mmrobust.data.files.folders import PICTURES
from mmrobust.errors import UserError

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # of the classes
LARGEST_ID = 33
SOURCE = "leftImg8bit, gtFine, disparity and camera of cityscapes-dataset.com"
FARTHEST = 300.0  # m; farther depth is no measurement
STATISTICS = {  # of ESANet: disparity as the files have it, depth in m; both with holes
    "disparity": Statistics(9069.706, 7178.336, raw=True),
    "depth": Statistics(31.7156, 38.7028, raw=True),
}
OFFICIAL = {
    "train": "train",
    "test": "val",
}  # our split: theirs; the labels of their test split are not public
PREPARED = {"train": "train", "test": "valid"}


class Cityscapes(RGBD):
    """`rgb` and `depth`; 2975 frames to train, and to test the 500 that are officially there to validate, since the
    labels of the official test split are not public.

    Two forms, which give the same numbers:

    - official: `{leftImg8bit,gtFine,disparity,camera}/{train,val}/<city>/<sample>_*`.
    - prepared, as by ESANet's code: `{train,valid}/{rgb,labels_19,disparity_raw,depth_raw}/<city>/<sample>_*`.

    A sample is called like `aachen_000000_000019`.

    Args:
        depth: `disparity`, the files' numbers, or `depth`: baseline × focal length over disparity, in metres, at half
            precision as the prepared form has it; none beyond 300 m. Where there is none the input is 0.
    """

    choices: ClassVar = {"depth": ("disparity", "depth")}
    published: ClassVar = (512, 1024)
    statistics: ClassVar = STATISTICS
    layout = f"leftImg8bit, gtFine, disparity and camera, or ESANet's folders train and valid: {SOURCE}"

    def __init__(self, *, depth: str, **base: Any) -> None:
        super().__init__(task="segmentation", **base)
        self.depth = depth

    def depth_file(self, path: Path) -> np.ndarray:
        """Disparities; of depth in metres, a `.npy` file of the prepared form, or disparities in a tree with cameras."""
        if self.depth == "disparity":
            return super().depth_file(path)
        return prepared_depth(path) if path.suffix == ".npy" else official_depth(path)

    def index(self, root: Path, audit: Audit) -> Contents:
        prepared = (root / "train/rgb").is_dir()
        frames: Parts = {}
        for split, folder in (PREPARED if prepared else OFFICIAL).items():
            names = root / folder / "rgb" if prepared else root / "leftImg8bit" / folder
            paths = sorted(p for p in names.glob("*/[!.]*_leftImg8bit.*") if p.suffix in PICTURES)
            frames[split] = {
                path.stem.removesuffix("_leftImg8bit"): self._files(root, folder, path, prepared)
                for path in paths
            }
        empty = [split for split, part in frames.items() if not part]
        audit.problems.extend(f"no images of {split}; expected {self.layout}" for split in empty)
        table = from_one(len(CLASSES)) if prepared else official_table()
        read_depth = prepared_depth if prepared else official_depth
        source = Source(
            images.read_image,
            depth_map if self.depth == "disparity" else read_depth,
            partial(label_map, table=table),
        )
        form = "prepared" if prepared else "official"
        return Contents(form, frames, source, CLASSES)

    def _files(self, root: Path, folder: str, rgb: Path, prepared: bool) -> Frame:
        city, name = rgb.parent.name, rgb.stem.removesuffix("_leftImg8bit")
        label = f"{name}_gtFine_labelIds.png"
        if not prepared:  # depth in metres is computed from disparity
            disparities = root / "disparity" / folder / city / f"{name}_disparity.png"
            return Frame(rgb, disparities, root / "gtFine" / folder / city / label)
        depth = f"{name}_disparity.png" if self.depth == "disparity" else f"{name}_depth.npy"
        there = root / folder
        return Frame(rgb, there / f"{self.depth}_raw" / city / depth, there / "labels_19" / city / label)


def official_table() -> np.ndarray:
    """The class of each label id: (34,) uint8."""
    table = np.full(LARGEST_ID + 1, VOID, np.uint8)
    table[list(LABEL_IDS)] = np.arange(len(CLASSES))
    return table


def official_depth(path: Path) -> np.ndarray:
    """(H, W) float32, m, from a file of disparities and the camera's."""
    name = path.name.replace("_disparity.png", "_camera.json")
    camera = path.parents[3] / "camera" / path.parents[1].name / path.parent.name / name
    try:
        parameters = json.loads(camera.read_text())
        baseline, focal = float(parameters["extrinsic"]["baseline"]), float(parameters["intrinsic"]["fx"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{camera} cannot be read as a camera's parameters ({error!r}); get it again, or take "
            "data.depth=disparity, which needs no cameras"
        ) from error
    shifted = depth_map(path)  # 256 times the disparity, plus 1; 0 where there is none
    shift = np.maximum(shifted - 1, 0) / 256
    depth = np.divide(baseline * focal, shift, out=np.zeros_like(shift), where=shift > 0)
    return measured(depth)


def prepared_depth(path: Path) -> np.ndarray:
    """(H, W) float32, m, from an array."""
    return measured(read_array(path))


def measured(depth: np.ndarray) -> np.ndarray:
    """Without what is too far; at half precision, in float32."""
    with np.errstate(over="ignore"):  # what is beyond half precision is too far as well
        half = depth.astype(np.float16).astype(np.float32)
    return np.where(half > FARTHEST, np.float32(0), half)
