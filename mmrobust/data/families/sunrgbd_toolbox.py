"""What SUN RGB-D's toolbox says of its samples: their names, the splits, and the labels of their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mmrobust.data.audit import Audit
from mmrobust.data.families.indoor_classes import CLASSES_40
from mmrobust.data.families.maps import as_classes, from_one
from mmrobust.data.files import images
from mmrobust.data.files.arrays import read_array
from mmrobust.data.files.folders import find, names_in
from mmrobust.data.files.hdf5 import Tables
from mmrobust.data.files.kept import cached, home
from mmrobust.data.files.matlab import read_mat
from mmrobust.errors import Problems, UserError

CLASSES = tuple({"refridgerator": "fridge", "television": "tv"}.get(name, name) for name in CLASSES_40[:37])
SOURCE = "SUNRGBD.zip and SUNRGBDtoolbox.zip of rgbd.cs.princeton.edu"
FARTHEST = 8000.0  # mm; what lies beyond is no measurement
LABELS = "SUNRGBD2Dseg/seglabel"  # in SUNRGBD2Dseg.mat

# Those with more than 80 frames in Song et al.; office_kitchen, with 81, is not among them.
SCENES = (
    "bathroom", "bedroom", "classroom", "computer_room", "conference_room", "corridor", "dining_area", "dining_room",
    "discussion_area", "furniture_store", "home_office", "kitchen", "lab", "lecture_theatre", "library", "living_room",
    "office", "rest_space", "study_space",
)  # fmt: skip


def sample_name(path: str, deeper: int) -> str:
    """The name of a sample, from a path to it or to what lies `deeper` folders below it, with whatever prefix: what
    comes after the last `SUNRGBD/`."""
    parts = [part for part in path.replace("\\", "/").strip().split("/") if part]
    start = len(parts) - parts[::-1].index("SUNRGBD") if "SUNRGBD" in parts else 0
    return "/".join(parts[start : len(parts) - deeper])


def read_splits(path: Path, problems: Problems) -> dict[str, list[str]]:
    """The sorted names of train and test; adds to `problems`."""
    found = zip(("train", "test"), read_mat(path, "alltrain", "alltest", squeeze=True), strict=True)
    splits = {split: sorted(sample_name(str(p), 0) for p in np.atleast_1d(paths)) for split, paths in found}
    both = sorted(set(splits["train"]) & set(splits["test"]))
    problems.add(f"{path}: in train and test", both, "get it again")
    return splits


def read_order(path: Path) -> list[str]:
    """The names of all samples in the order of SUNRGBDMeta.mat."""
    (rows,) = read_mat(path, "SUNRGBDMeta", squeeze=True)
    return [sample_name(str(row.rgbpath), 2) for row in np.atleast_1d(rows)]


def find_labels(
    near: Sequence[Path], names: Sequence[str], audit: Audit
) -> tuple[dict[str, int], Tables, tuple[Path, ...]]:
    """The rows of the samples in SUNRGBD2Dseg.mat, the file itself, and the files that say so. Adds to `audit`.

    Args:
        near: where the folder Metadata may be.
        names: of the samples.
        audit: what is wrong.

    Raises:
        UserError: the files are not there; all that `audit` has.
    """
    folders = [folder / "Metadata" for folder in near]
    where = f"it is in {SOURCE}; or label/label.npy in each sample's folder, as ESANet's code makes them"
    meta = find("SUNRGBDMeta.mat", folders, audit.problems, where)
    seg = find("SUNRGBD2Dseg.mat", folders, audit.problems, where)
    audit.check()
    order: list[str] = cached(home(), "sunrgbd_order", [meta], None, partial(read_order, meta)).tolist()
    tables = Tables(seg)
    count = tables.array(LABELS).size
    rows = {name: row for row, name in enumerate(order)}
    absent = [name for name in names if name not in rows]
    audit.problems.add(f"not in {meta}", absent, f"get it again, it is in {SOURCE}")
    if count != len(order):
        audit.problems.append(
            f"{seg} has {count} labels, {meta} {len(order)} samples; get both again: {SOURCE}"
        )
    return rows, tables, (meta, seg)


def label_of(tables: Tables, row: int) -> np.ndarray:
    """One of SUNRGBD2Dseg.mat: (H, W) uint8."""
    return as_classes(
        tables.referred(LABELS, row), from_one(len(CLASSES)), f"{LABELS}[{row}] of {tables.path}"
    )


def label_array(path: Path) -> np.ndarray:
    """A label.npy: (H, W) uint8."""
    numbers = read_array(path)
    if numbers.ndim != 2:
        raise UserError(f"{path} has shape {numbers.shape}, not (height, width); get it again")
    return as_classes(numbers, from_one(len(CLASSES)), str(path))


def only_file(folder: Path, suffixes: tuple[str, ...], folders: dict[str, set[str]]) -> Path:
    """The first file with one of the suffixes, or a path that does not exist."""
    names = [n for n in names_in(folder, folders) if n.endswith(suffixes) and not n.startswith(".")]
    return folder / (min(names) if names else f"*{suffixes[0]}")


def depth_image(path: Path) -> np.ndarray:
    """(H, W) float32, mm, at most 8 m: the file's 16 bits are rotated by three."""
    rotated = images.read_map(path).astype(np.uint16)
    return np.minimum(((rotated >> 3) | (rotated << 13)).astype(np.float32), np.float32(FARTHEST))
