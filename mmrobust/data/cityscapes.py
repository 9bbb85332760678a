"""Cityscapes: streets of 50 cities from a car, with depth from stereo, 19 classes (Cordts et al., CVPR 2016)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmrobust.data.audit import Audit
from mmrobust.data.families.cityscapes_files import (
    CLASSES,
    OFFICIAL,
    PREPARED,
    SOURCE,
    official_depth,
    official_table,
    prepared_depth,
)
from mmrobust.data.families.frames import Frame, Source, Statistics
from mmrobust.data.families.maps import depth_map, from_one, label_map
from mmrobust.data.families.rgbd import RGBD, Contents, Parts
from mmrobust.data.files import images
from mmrobust.data.files.folders import PICTURES

STATISTICS = {  # of ESANet: disparity as the files have it, depth in m; both with holes
    "disparity": Statistics(9069.706, 7178.336, raw=True),
    "depth": Statistics(31.7156, 38.7028, raw=True),
}


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
