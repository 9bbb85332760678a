"""NYU Depth v2: 1,449 frames of a Kinect indoors, labelled pixel by pixel (Silberman et al., ECCV 2012)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmrobust.data.families.frames import VOID, Frame, Source, Statistics, as_classes, from_one
from mmrobust.data.families.rgbd import RGBD, Contents, Parts
from mmrobust.data.files import images
from mmrobust.data.files.folders import find, picture
from mmrobust.data.files.hdf5 import Tables
from mmrobust.data.files.matlab import read_variables
from mmrobust.errors import Problems

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
SCENES = (
    "bathroom", "bedroom", "bookstore", "classroom", "dining_room", "home_office", "kitchen", "living_room", "office",
    "others",
)  # fmt: skip
MAT = "nyu_depth_v2_labeled.mat"
SOURCE = "cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html"
# Of refined depth in training, mm; ESANet, MMANet and DMRNet normalise raw depth with these as well.
MEAN, STD = 2841.94941272766, 1417.2594281672277


class NYUv2(RGBD):
    """`rgb` and `depth`, in millimetres before it is normalised; 795 frames to train, 654 to test.

    Two forms, which give the same numbers:

    - official: `nyu_depth_v2_labeled.mat`; and, there or in a folder beside `root` called like it with `_meta` after
      its name, `splits.mat` and, for segmentation, `classMapping40.mat`. Scenes are in this form alone.
    - prepared, as by ESANet's code: `train.txt`, `test.txt` and `{train,test}/{rgb,depth,depth_raw,labels_40,labels_13}/
      NNNN.png`, depth in whole millimetres, rgb also as `.jpg`. If both are there this one is read, since it is faster.

    A sample is called by its number in the .mat, counted from 1: `0003`.

    Args:
        task: `segmentation` or `scene`: the nine most frequent kinds of scenes, and others.
        classes: 40 or 13, of segmentation.
        depth: `refined`, with holes filled in, or `raw`, where pixels without depth stay 0.
        image_size: [height, width] of the inputs for segmentation.
        scene_size: that for scenes.
    """

    choices: ClassVar = {"task": ("segmentation", "scene"), "classes": (40, 13), "depth": ("refined", "raw")}
    published: ClassVar = (480, 640)
    layout = f"{MAT}, splits.mat and classMapping40.mat, or the folders train and test with train.txt and test.txt: {SOURCE}"

    def __init__(
        self,
        *,
        task: str,
        classes: int,
        depth: str,
        image_size: Sequence[int],
        scene_size: Sequence[int],
        **base: Any,
    ) -> None:
        super().__init__(task=task, image_size=scene_size if task == "scene" else image_size, **base)
        self.classes, self.depth = classes, depth

    def index(self, root: Path) -> Contents:
        prepared = all((root / f"{split}.txt").is_file() for split in ("train", "test"))
        if prepared and not (self.task == "scene" and (root / MAT).is_file()):
            return self._prepared(root)
        return self._official(root)

    def _contents(self, form: str, frames: Parts, source: Source) -> Contents:
        classes = CLASSES_40 if self.classes == 40 else CLASSES_13
        statistics = Statistics(MEAN, STD, raw=self.depth == "raw")
        return Contents(form, frames, source, statistics, SCENES if self.task == "scene" else classes)

    def _official(self, root: Path) -> Contents:
        problems = Problems()
        folders = [root, root.with_name(f"{root.name}_meta")]
        mat = find(MAT, folders[:1], problems, f"expected {self.layout}")
        where = "it comes with the dataset's toolbox, or github.com/ankurhanda/nyuv2-meta-data"
        splits = find("splits.mat", folders, problems, where)
        mapping = None
        if self.task == "segmentation":
            mapping = find("classMapping40.mat", folders, problems, where)
        if not (mat and splits) or problems:
            self.refuse(problems)
        tables = Tables(mat)
        depths = "depths" if self.depth == "refined" else "rawDepths"
        count = check_axes(tables, ["images", depths, *(["labels"] if mapping else [])], problems)
        rows = read_splits(splits, count, problems)
        if problems:
            self.refuse(problems)
        table = mapping_of(mapping, self.classes) if mapping else from_one(self.classes)  # scenes need none
        source = Source(
            partial(tables.row, "images"),
            partial(depth_of, tables, depths),
            partial(label_of, tables, table=table),
            (mat, *([mapping] if mapping else [])),
        )
        kind = (lambda row: scene_of(tables, row)) if self.task == "scene" else (lambda row: -1)
        frames = {
            split: {f"{row + 1:04d}": Frame(row, row, row, kind(row)) for row in sorted(part)}
            for split, part in rows.items()
        }
        return self._contents("official", frames, source)

    def _prepared(self, root: Path) -> Contents:
        if self.task == "scene":
            self.refuse([f"kinds of scenes are in {MAT} alone, which is not here; get it from {SOURCE}"])
        labels = f"labels_{self.classes}"
        if not (root / "train" / labels).is_dir() and (root / "train/labels_40").is_dir():
            labels = "labels_40"
        table = from_one(self.classes) if labels != "labels_40" else of_40(self.classes)
        problems, frames, folders = Problems(), Parts(), dict[str, set[str]]()
        for split in ("train", "test"):
            lines = (root / f"{split}.txt").read_text("utf-8-sig", errors="replace").split()
            names = sorted({line.rpartition(".")[0] or line for line in lines})
            odd = [name for name in names if not name.isdecimal()]
            problems.add(f"{root / split}.txt: not numbers of frames", odd, "expected one a line, like 0003")
            parts = {
                name: self._files(root / split, labels, name, folders) for name in names if name.isdecimal()
            }
            frames[split] = {f"{int(name):04d}": frame for name, frame in parts.items()}
        if problems:
            self.refuse(problems)
        source = Source(images.read_image, depth_image, partial(label_image, table=table))
        return self._contents("prepared", frames, source)

    def _files(self, folder: Path, labels: str, name: str, folders: dict[str, set[str]]) -> Frame:
        of_depth = "depth" if self.depth == "refined" else "depth_raw"
        rgb, depth, label = (folder / part / f"{name}.png" for part in ("rgb", of_depth, labels))
        return Frame(picture(rgb, folders), depth, label)


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
    found = read_variables(path, ["trainNdxs", "testNdxs"])
    numbers = {s: np.atleast_1d(found[f"{s}Ndxs"]).astype(int).ravel().tolist() for s in ("train", "test")}
    for split, part in numbers.items():
        beyond = [str(n) for n in part if not 1 <= n <= count]
        remedy = f"get both files again: {SOURCE}"
        problems.add(f"{path}: {split}Ndxs beyond the frames 1 to {count}", beyond, remedy)
    both = sorted(set(numbers["train"]) & set(numbers["test"]))
    problems.add(f"{path}: in train and test", [f"{n:04d}" for n in both], "get it again")
    return {split: [n - 1 for n in part] for split, part in numbers.items()}


def of_40(classes: int) -> np.ndarray:
    """The table of the 40 labels to as many classes, 0 being void: (41,) uint8."""
    return from_one(40) if classes == 40 else np.array([VOID, *(c - 1 for c in LABELS_13)], dtype=np.uint8)


def mapping_of(path: Path, classes: int) -> np.ndarray:
    """The table of the .mat's 894 labels, 0 being void: (895,) uint8.

    Raises:
        UserError: the file is not classMapping40.mat.
    """
    mapping = np.ravel(read_variables(path, ["mapClass"])["mapClass"])
    as_40 = as_classes(mapping, of_40(classes), f"mapClass of {path}")
    return np.concatenate([[VOID], as_40]).astype(np.uint8)


def depth_of(tables: Tables, name: str, row: int) -> np.ndarray:
    """(H, W) float32, whole millimetres, cut off as the prepared form does."""
    return np.floor(tables.row(name, row).astype(np.float32) * np.float32(1000))


def label_of(tables: Tables, row: int, table: np.ndarray) -> np.ndarray:
    return as_classes(tables.row("labels", row), table, f"labels[{row}] of {tables.path}")


def depth_image(path: Path) -> np.ndarray:
    return images.read_map(path).astype(np.float32)


def label_image(path: Path, table: np.ndarray) -> np.ndarray:
    return as_classes(images.read_map(path), table, str(path))


def scene_of(tables: Tables, row: int) -> int:
    """The class of a frame's scene."""
    kind = tables.text("sceneTypes", row)
    return SCENES.index(kind if kind in SCENES else "others")
