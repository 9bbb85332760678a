"""CASIA-SURF: faces before a camera, live or a mask of paper, in colour, depth and infrared (Zhang et al., 2019)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrobust import keyed
from mmrobust.data.base import DataModule
from mmrobust.data.files import images
from mmrobust.data.files.folders import exists, picture
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Key, Sample, Split
from mmrobust.errors import Problems, UserError

MODALITIES = ("rgb", "depth", "ir")
CLASSES = ("spoof", "live")
SOURCE = "the ChaLearn face anti-spoofing challenge of 2019, on request from its authors"
DEGREES = 30  # largest rotation
CANVAS = 0.8  # of the rotated image's bounding box
ENLARGED = 144 / 112  # side before the crop over the side after it

log = logging.getLogger(__name__)
Paths = tuple[Path, Path, Path]  # rgb, depth, ir


class Faces(Split):
    """Triplets of images; with run_seed None, for testing, nothing is random."""

    def __init__(
        self,
        files: Mapping[str, Paths],
        targets: Sequence[int],
        size: int,
        channels: str,
        run_seed: int | None,
    ) -> None:
        self.ids, self.files, self.targets = list(files), list(files.values()), targets
        self.present = np.ones((len(files), len(MODALITIES)), dtype=bool)
        self.size, self.channels, self.run_seed = size, channels, run_seed
        self.resize = images.resize(size if run_seed is None else round(ENLARGED * size))
        self.crop = images.random_crop_and_flip(size)

    def read(self, key: Key) -> dict[str, np.ndarray]:
        """(H, W, 3) uint8 each; sizes may differ."""
        return dict(zip(MODALITIES, map(images.read_image, self.files[key.index]), strict=True))

    def augment(self, raw: dict[str, np.ndarray], key: Key) -> dict[str, np.ndarray]:
        """The same rotation, crop and flip for all modalities: (size, size, 3) each."""
        faces = [images.transformed(self.resize, 0, image=raw[m])["image"] for m in MODALITIES]
        if self.run_seed is not None:
            salts = (self.run_seed, "geometry", key.epoch, key.index)
            degrees = int(keyed.uniforms(1, *salts, "angle")[0] * (2 * DEGREES + 1)) - DEGREES
            stack = np.stack([images.rotated(face, degrees, CANVAS) for face in faces])
            faces = list(images.transformed(self.crop, keyed.seed_of(*salts), images=stack)["images"])
        return dict(zip(MODALITIES, faces, strict=True))

    def finish(self, raw: dict[str, np.ndarray], key: Key) -> Sample:
        return Sample({m: self.scaled(raw[m]) for m in MODALITIES}, self.targets[key.index])

    def scaled(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (3, H, W) float32, (x - 127.5) / 128."""
        ordered = image[..., ::-1].copy() if self.channels == "bgr" else image
        return ((torch.from_numpy(ordered).float() - 127.5) / 128).movedim(-1, 0)


class CASIASURF(DataModule):
    """`rgb`, `depth` and `ir`, images (3, 112, 112); 0 is a spoof, 1 is live.

    Layout: the lists below `root`, whose rows `rgb depth ir label` name files relative to `root`, like
    `Training/real_part/CLKJ_.../real.rssdk/color/1.jpg`; copies with commas and the header `rgb,depth,ir,label` are
    read too, and a name `..._resized.jpg` stands for the file without `_resized` where only that exists. A sample is
    called as its colour image. In training all images are made 144 × 144 (at image_size=112), rotated by a whole
    angle in [-30°, 30°] onto a canvas 0.8 times the bounding box, cropped and flipped, all alike; in testing resized.

    Args:
        lists: file name of each split (train, val, test; val may be null: no validation split). The public lists of
            the challenge have no labels: take the private ones. Sizes 29266, 9608, 57710.
        image_size: side in pixels.
        channels: `bgr`, as the released codes read images, or `rgb`.
        primary: what selects the checkpoint and is reported: `accuracy`, `acer`, or another metric of
            `tasks.presentation_attack`.
    """

    def __init__(
        self, *, lists: Mapping[str, str | None], image_size: int, channels: str, primary: str, **base: Any
    ) -> None:
        super().__init__(**base)
        self.lists, self.image_size, self.channels, self.primary = lists, image_size, channels, primary

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        root, problems, damaged = Path(self.root), Problems(), Problems()
        if self.channels not in ("rgb", "bgr"):
            raise UserError(f"data.channels={self.channels} is no order of channels; use bgr or rgb")
        if strange := set(self.lists) - {"train", "val", "test"}:
            raise UserError(f"data.lists has {', '.join(sorted(strange))}; its keys are train, val and test")
        if not root.is_dir():
            raise UserError(
                f"data.root={root} does not exist; set it, or paths.data, to where Training, Val, Testing and the "
                f"lists lie: {SOURCE}"
            )
        names = {split: name for split in ("train", "val", "test") if (name := self.lists.get(split))}
        for split in ("train", "test"):
            if split not in names:
                problems.append(f"data.lists.{split} is empty; give the name of a list in {root}")
        shape, splits = (3, self.image_size, self.image_size), dict[str, Split]()
        folders: dict[str, set[str]] = {}
        for split, name in names.items():
            files, targets = read_list(root, name, problems)
            files = {sample: as_on_disk(paths, folders) for sample, paths in files.items()}
            absent = [
                str(p.relative_to(root)) for paths in files.values() for p in paths if not exists(p, folders)
            ]
            damaged.add(f"{name}: not in {root}", absent, f"get them from {SOURCE}")
            seed = self.run_seed if split == "train" else None
            splits[split] = Faces(files, targets, self.image_size, self.channels, seed)
        if problems or (damaged and self.corrupt == "error"):
            if damaged and not problems:
                damaged[-1] += "; or leave these samples out: data.corrupt=skip"
            raise UserError(f"data.root={root} cannot be used:\n- " + "\n- ".join([*problems, *damaged]))
        for split, data in splits.items():
            log.info("%s: %d samples, %d live", split, len(data), sum(data.targets))
        modalities = {m: Modality("image", shape) for m in MODALITIES}
        spec = DataSpec(
            "classification",
            len(CLASSES),
            len(splits["train"]),
            modalities,
            CLASSES,
            metrics=("presentation_attack",),
            primary=self.primary,
        )
        return spec, splits


def as_on_disk(paths: Paths, folders: dict[str, set[str]]) -> Paths:
    """The names without `_resized`, or with another ending of pictures, where only these exist."""
    found = [picture(path, folders) for path in paths]
    shorter = [picture(path.with_stem(path.stem.removesuffix("_resized")), folders) for path in paths]
    rgb, depth, ir = (
        short if not exists(path, folders) and exists(short, folders) else path
        for path, short in zip(found, shorter, strict=True)
    )
    return rgb, depth, ir


def read_list(root: Path, name: str, problems: Problems) -> tuple[dict[str, Paths], list[int]]:
    """The triplets of a list by the name of their colour image, and their labels; adds to `problems`."""
    path = root / name
    if not path.is_file():
        problems.append(f"no {path}; it belongs to {SOURCE}; or name another one: data.lists")
        return {}, []
    files: dict[str, Paths] = {}
    targets: list[int] = []
    wrong, twice = list[str](), list[str]()
    for number, row in enumerate(path.read_text("utf-8-sig", errors="replace").splitlines(), start=1):
        fields = [field.strip() for field in (row.split(",") if "," in row else row.split())]
        if not any(fields) or fields[0] == "rgb":
            continue
        if len(fields) != 4 or fields[3] not in ("0", "1"):
            wrong.append(f"line {number}: {row}")
        elif fields[0] in files:
            twice.append(f"line {number}: {fields[0]}")
        else:
            files[fields[0]] = (root / fields[0], root / fields[1], root / fields[2])
            targets.append(int(fields[3]))
    expected = "`rgb depth ir label` with label 1 (live) or 0 (spoof)"
    problems.add(f"{path}: not {expected}", wrong, "take the list with labels (…_private_list), or mend them")
    problems.add(f"{path}: listed before", twice, "keep one row of each")
    if not files and not wrong:
        problems.append(f"{path} names no samples; expected rows {expected}")
    return files, targets
