"""The 40 classes of indoor scenes that NYUv2 has, of which SUN RGB-D has the first 37, and the 13 that sum them up."""

from __future__ import annotations

import numpy as np

from mmrobust.data.families.maps import VOID, from_one

CLASSES_40 = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
)  # fmt: skip
CLASSES_13 = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv", "wall",
    "window",
)  # fmt: skip
# class13Mapping.mat: of the 13, counted from 1, the one that each of the 40 belongs to.
LABELS_13 = (
    12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5, 7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7,
    7, 7, 6, 7,
)  # fmt: skip


def of_40(classes: int) -> np.ndarray:
    """The table of the 40 labels to as many classes, 0 being void: (41,) uint8."""
    return from_one(40) if classes == 40 else np.array([VOID, *(c - 1 for c in LABELS_13)], dtype=np.uint8)
