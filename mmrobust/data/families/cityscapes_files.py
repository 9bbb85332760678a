"""What the files of Cityscapes hold: labels by their ids, disparities, cameras. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mmrobust.data.families.maps import VOID, depth_map
from mmrobust.data.files.arrays import read_array
from mmrobust.errors import UserError

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # of the classes
LARGEST_ID = 33
SOURCE = "leftImg8bit, gtFine, disparity and camera of cityscapes-dataset.com"
FARTHEST = 300.0  # m; farther depth is no measurement
OFFICIAL = {
    "train": "train",
    "test": "val",
}  # our split: theirs; the labels of their test split are not public
PREPARED = {"train": "train", "test": "valid"}


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
