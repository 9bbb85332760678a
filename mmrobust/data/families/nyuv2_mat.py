"""The official form of NYUv2: what nyu_depth_v2_labeled.mat and the files that come with it hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmrobust.data.families.indoor_classes import of_40
from mmrobust.data.families.maps import VOID, as_classes
from mmrobust.data.files.hdf5 import Tables
from mmrobust.data.files.matlab import read_mat
from mmrobust.errors import Problems

MAT = "nyu_depth_v2_labeled.mat"
SOURCE = "cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html"
SCENES = (
    "bathroom", "bedroom", "bookstore", "classroom", "dining_room", "home_office", "kitchen", "living_room", "office",
    "others",
)  # fmt: skip


def check_axes(tables: Tables, names: Sequence[str], problems: Problems) -> int:
    """How many frames there are; adds to `problems` if an array is not stored as MATLAB does, axes reversed."""
    found = {name: tables.array(name).shape for name in names}
    shape = found["images"]
    # Frames are wider than high, so that swapped axes show.
    right = len(shape) == 4 and shape[1] == 3 and shape[2] > shape[3]
    right = right and all(found[name] == (shape[0], *shape[2:]) for name in names[1:])
    if not right:
        told = ", ".join(f"{name} {' × '.join(map(str, size))}" for name, size in found.items())
        problems.append(
            f"{tables.path} has {told}; expected images N × 3 × width × height and the others N × width × height, as "
            "MATLAB stores them (1449 × 3 × 640 × 480): the axes are reversed or the file was rewritten; get it again"
        )
    return shape[0]


def read_splits(path: Path, count: int, problems: Problems) -> dict[str, list[int]]:
    """Rows, from 0, of train and test in a file that counts them from 1; adds to `problems`."""
    found = zip(("train", "test"), read_mat(path, "trainNdxs", "testNdxs"), strict=True)
    numbers = {split: rows.astype(int).ravel().tolist() for split, rows in found}
    for split, part in numbers.items():
        beyond = [str(n) for n in part if not 1 <= n <= count]
        remedy = f"get both files again: {SOURCE}"
        problems.add(f"{path}: {split}Ndxs beyond the frames 1 to {count}", beyond, remedy)
    both = sorted(set(numbers["train"]) & set(numbers["test"]))
    problems.add(f"{path}: in train and test", [f"{n:04d}" for n in both], "get it again")
    return {split: [n - 1 for n in part] for split, part in numbers.items()}


def mapping_of(path: Path, classes: int) -> np.ndarray:
    """The table of the .mat's 894 labels, 0 being void: (895,) uint8.

    Raises:
        UserError: the file is not classMapping40.mat.
    """
    (mapping,) = read_mat(path, "mapClass")
    as_40 = as_classes(mapping.ravel(), of_40(classes), f"mapClass of {path}")
    return np.concatenate([[VOID], as_40]).astype(np.uint8)


def depth_of(tables: Tables, name: str, row: int) -> np.ndarray:
    """(H, W) float32, whole millimetres, cut off as the prepared form does."""
    return np.floor(tables.row(name, row).astype(np.float32) * np.float32(1000))


def label_of(tables: Tables, row: int, table: np.ndarray) -> np.ndarray:
    return as_classes(tables.row("labels", row), table, f"labels[{row}] of {tables.path}")


def scene_of(tables: Tables, row: int) -> int:
    """The class of a frame's scene."""
    kind = tables.text("sceneTypes", row)
    return SCENES.index(kind if kind in SCENES else "others")
