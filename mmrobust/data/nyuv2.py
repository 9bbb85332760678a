"""NYU Depth v2: 1,449 frames of a Kinect indoors, labelled pixel by pixel (Silberman et al., ECCV 2012)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from mmrobust.data.audit import Audit
from mmrobust.data.families.frames import Frame, Source, Statistics
from mmrobust.data.families.indoor_classes import CLASSES_13, CLASSES_40, of_40
from mmrobust.data.families.maps import depth_map, from_one, label_map
from mmrobust.data.families.nyuv2_mat import (
    MAT,
    SCENES,
    SOURCE,
    check_axes,
    depth_of,
    label_of,
    mapping_of,
    read_splits,
    scene_of,
)
from mmrobust.data.families.rgbd import RGBD, Contents, Parts
from mmrobust.data.files import images
from mmrobust.data.files.folders import find, picture
from mmrobust.data.files.hdf5 import Tables

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
    statistics: ClassVar = {which: Statistics(MEAN, STD, raw=which == "raw") for which in ("refined", "raw")}
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

    def index(self, root: Path, audit: Audit) -> Contents:
        prepared = all((root / f"{split}.txt").is_file() for split in ("train", "test"))
        if prepared and not (self.task == "scene" and (root / MAT).is_file()):
            return self._prepared(root, audit)
        return self._official(root, audit)

    def _contents(self, form: str, frames: Parts, source: Source) -> Contents:
        classes = CLASSES_40 if self.classes == 40 else CLASSES_13
        return Contents(form, frames, source, SCENES if self.task == "scene" else classes)

    def _official(self, root: Path, audit: Audit) -> Contents:
        problems, labelled = audit.problems, self.task == "segmentation"
        folders = [root, root.with_name(f"{root.name}_meta")]
        mat = find(MAT, folders[:1], problems, f"expected {self.layout}")
        where = "it comes with the dataset's toolbox, or github.com/ankurhanda/nyuv2-meta-data"
        splits = find("splits.mat", folders, problems, where)
        mapping = [find("classMapping40.mat", folders, problems, where)] if labelled else []
        audit.check()
        tables = Tables(mat)
        depths = "depths" if self.depth == "refined" else "rawDepths"
        count = check_axes(tables, ["images", depths, *(["labels"] if labelled else [])], problems)
        rows = read_splits(splits, count, problems)
        audit.check()
        table = (
            mapping_of(mapping[0], self.classes) if mapping else from_one(self.classes)
        )  # scenes need none
        source = Source(
            partial(tables.row, "images"),
            partial(depth_of, tables, depths),
            partial(label_of, tables, table=table),
            (mat, *mapping),
        )
        kind = (lambda row: scene_of(tables, row)) if self.task == "scene" else (lambda row: -1)
        frames = {
            split: {f"{row + 1:04d}": Frame(row, row, row, kind(row)) for row in sorted(part)}
            for split, part in rows.items()
        }
        return self._contents("official", frames, source)

    def _prepared(self, root: Path, audit: Audit) -> Contents:
        if self.task == "scene":
            told = f"kinds of scenes are in {MAT} alone, which is not here; get it from {SOURCE}"
            audit.problems.append(told)
        labels = f"labels_{self.classes}"
        if not (root / "train" / labels).is_dir() and (root / "train/labels_40").is_dir():
            labels = "labels_40"
        table = from_one(self.classes) if labels != "labels_40" else of_40(self.classes)
        frames, folders = Parts(), dict[str, set[str]]()
        for split in ("train", "test"):
            lines = (root / f"{split}.txt").read_text("utf-8-sig", errors="replace").split()
            names = sorted({line.rpartition(".")[0] or line for line in lines})
            odd = [name for name in names if not name.isdecimal()]
            audit.problems.add(
                f"{root / split}.txt: not numbers of frames", odd, "expected one a line, like 0003"
            )
            parts = {
                name: self._files(root / split, labels, name, folders) for name in names if name.isdecimal()
            }
            frames[split] = {f"{int(name):04d}": frame for name, frame in parts.items()}
        source = Source(images.read_image, depth_map, partial(label_map, table=table))
        return self._contents("prepared", frames, source)

    def _files(self, folder: Path, labels: str, name: str, folders: dict[str, set[str]]) -> Frame:
        of_depth = "depth" if self.depth == "refined" else "depth_raw"
        rgb, depth, label = (folder / part / f"{name}.png" for part in ("rgb", of_depth, labels))
        return Frame(picture(rgb, folders), depth, label)
