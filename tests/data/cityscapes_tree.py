"""The prepared form of a small Cityscapes, written by hand: `prepare_cityscapes(official, prepared)`."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from mmrobust.prepare.synthetic.cityscapes import write


def prepare_cityscapes(official: Path, root: Path) -> None:
    """The prepared form of an official one."""
    from mmrobust.data.families.cityscapes_files import LABEL_IDS

    reduce = np.zeros(34, np.uint8)
    reduce[list(LABEL_IDS)] = np.arange(1, 20)
    for rgb in official.glob("leftImg8bit/*/*/*.png"):
        split, city, name = rgb.parts[-3], rgb.parts[-2], rgb.name.removesuffix("_leftImg8bit.png")
        there = root / ("valid" if split == "val" else split)
        write(there / f"rgb/{city}/{rgb.name}", cv2.imread(str(rgb)))
        label = cv2.imread(str(official / f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png"), -1)
        write(there / f"labels_19/{city}/{name}_gtFine_labelIds.png", reduce[label])
        shifted = cv2.imread(str(official / f"disparity/{split}/{city}/{name}_disparity.png"), -1)
        write(there / f"disparity_raw/{city}/{name}_disparity.png", shifted)
        camera = json.loads((official / f"camera/{split}/{city}/{name}_camera.json").read_text())
        depth = shifted.astype("float32")
        depth[shifted > 0] = (depth[shifted > 0] - 1) / 256
        valid = depth > 0
        depth[valid] = camera["extrinsic"]["baseline"] * camera["intrinsic"]["fx"] / depth[valid]
        path = there / f"depth_raw/{city}/{name}_depth.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        with np.errstate(over="ignore"):
            np.save(path, depth.astype("float16"))
