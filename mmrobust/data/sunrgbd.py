"""SUN RGB-D: 10,335 frames of four sensors indoors, labelled pixel by pixel (Song et al., CVPR 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmrobust.data.audit import Audit
from mmrobust.data.families.frames import Frame, Source, Statistics
from mmrobust.data.families.rgbd import RGBD, Contents
from mmrobust.data.families.sunrgbd_toolbox import (
    CLASSES,
    SCENES,
    SOURCE,
    depth_image,
    find_labels,
    label_array,
    label_of,
    only_file,
    read_splits,
    sample_name,
)
from mmrobust.data.files import images
from mmrobust.data.files.folders import PICTURES, find
from mmrobust.errors import Problems

# Of training depth, mm. ESANet's are those of the files' numbers, 8 times as many (their low three bits are 0).
STATISTICS = {
    "refined": Statistics(19025.14930492213 / 8, 9880.916071806689 / 8, raw=False),
    "raw": Statistics(2290.04, 1112.33, raw=True),
}


class SUNRGBD(RGBD):
    """`rgb` and `depth`, in millimetres before it is normalised; 5285 frames to train, 5050 to test.

    Layout: `SUNRGBD/<sensor>/.../<sample>/` with one file each in `image`, `depth` and `depth_bfx`, and `scene.txt`.
    A sample is called by the path of its folder below `SUNRGBD`. Two forms, which give the same numbers:

    - official: in `SUNRGBDtoolbox`, at or beside `root`, or in a folder called like `root` with `_meta` after its name:
      `traintestSUNRGBD/allsplit.mat` and, for segmentation, `Metadata/SUNRGBDMeta.mat` and `Metadata/SUNRGBD2Dseg.mat`.
    - prepared, as by ESANet's code: `train_rgb.txt` and `test_rgb.txt`, and `label/label.npy` in each sample's folder.
      Either is read where it is there, the lists only where there is no allsplit.mat.

    Args:
        task: `segmentation`, 37 classes, or `scene`: 19 kinds of scenes, leaving out the frames of all others (4845 and
            4659 are left).
        depth: `refined`, with holes filled in (`depth_bfx`), or `raw`, where pixels without depth stay 0.
        image_size: [height, width] of the inputs for segmentation.
        scene_size: that for scenes.
    """

    choices: ClassVar = {"task": ("segmentation", "scene"), "depth": ("refined", "raw")}
    published: ClassVar = (480, 640)
    statistics: ClassVar = STATISTICS
    layout = f"the folder SUNRGBD with the samples, and the folder SUNRGBDtoolbox: {SOURCE}"

    def __init__(
        self, *, task: str, depth: str, image_size: Sequence[int], scene_size: Sequence[int], **base: Any
    ) -> None:
        super().__init__(task=task, image_size=scene_size if task == "scene" else image_size, **base)
        self.depth = depth

    def depth_file(self, path: Path) -> np.ndarray:
        return depth_image(path)

    def index(self, root: Path, audit: Audit) -> Contents:
        folders: dict[str, set[str]] = {}
        samples = root / "SUNRGBD" if (root / "SUNRGBD").is_dir() else root
        near = [root, root.parent, root.with_name(f"{root.name}_meta")]
        near = [n / part for n in near for part in ("SUNRGBDtoolbox", ".")]
        splits, form = self._splits(root, near, audit.problems)
        names = [name for part in splits.values() for name in part]
        labels: dict[str, Any] = dict.fromkeys(names)
        source, scenes = Source(images.read_image, depth_image, label_array), dict.fromkeys(names, -1)
        if self.task == "scene":
            scenes = self._scenes(samples, names, audit.problems)
        elif names and (samples / names[0] / "label/label.npy").is_file():
            labels = {name: samples / name / "label/label.npy" for name in names}
            form += ", label.npy"
        else:
            labels, tables, files = find_labels(near, names, audit)
            source = Source(images.read_image, depth_image, partial(label_of, tables), files)
            form += ", SUNRGBD2Dseg.mat"
        audit.check()
        depth = "depth_bfx" if self.depth == "refined" else "depth"
        frames = {
            split: {
                name: Frame(
                    only_file(samples / name / "image", PICTURES, folders),
                    only_file(samples / name / depth, (".png",), folders),
                    labels[name],
                    scenes[name],
                )
                for name in part
                if name in scenes
            }
            for split, part in splits.items()
        }
        classes = SCENES if self.task == "scene" else CLASSES
        return Contents(form, frames, source, classes)

    def _splits(
        self, root: Path, near: Sequence[Path], problems: Problems
    ) -> tuple[dict[str, list[str]], str]:
        """The names of train and test, and which form they are from."""
        lists = {split: root / f"{split}_rgb.txt" for split in ("train", "test")}
        folders = [folder / "traintestSUNRGBD" for folder in near]
        prepared = all(path.is_file() for path in lists.values())
        if prepared and not any((folder / "allsplit.mat").is_file() for folder in folders):
            rows = {split: path.read_text("utf-8-sig").split("\n") for split, path in lists.items()}
            return {
                s: sorted(sample_name(r, 2) for r in part if r.strip()) for s, part in rows.items()
            }, "prepared"
        path = find("allsplit.mat", folders, problems, f"it is in {SOURCE}")
        return (read_splits(path, problems) if path.is_file() else {}), "official"

    def _scenes(self, samples: Path, names: Sequence[str], problems: Problems) -> dict[str, int]:
        """{name: class} of the samples that show one of the 19 kinds; without scene.txt a sample is left out if
        data.corrupt=skip."""
        scenes, absent = dict[str, int](), list[str]()
        for name in names:
            try:
                kind = (samples / name / "scene.txt").read_text().strip()
            except OSError:
                absent.append(name)
                continue
            if kind in SCENES:
                scenes[name] = SCENES.index(kind)
        if self.corrupt == "error":
            remedy = f"get them again ({SOURCE}), or leave these samples out: data.corrupt=skip"
            problems.add(f"no scene.txt in {samples}/", absent, remedy)
        return scenes
