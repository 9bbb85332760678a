"""CASIA-SURF: faces before a camera, live or a mask of paper, in colour, depth and infrared (Zhang et al., 2019)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrobust import keyed
from mmrobust.data.base import DataModule
from mmrobust.data.families.casia_surf_lists import CLASSES, MODALITIES, SOURCE, Triplets, read_triplets
from mmrobust.data.files import images
from mmrobust.data.files.folders import exists
from mmrobust.data.reader import Reader, picture_reader
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Key, Sample, Split
from mmrobust.errors import UserError

DEGREES = 30  # largest rotation
CANVAS = 0.8  # of the rotated image's bounding box
ENLARGED = 144 / 112  # side before the crop over the side after it

log = logging.getLogger(__name__)


class Faces(Split):
    """Triplets of images; with run_seed None, for testing, nothing is random."""

    def __init__(self, triplets: Triplets, size: int, channels: str, run_seed: int | None) -> None:
        self.ids, self.files = list(triplets), [files for files, _ in triplets.values()]
        self.targets = [target for _, target in triplets.values()]
        self.present = np.ones((len(triplets), len(MODALITIES)), dtype=bool)
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
        return Sample({m: scaled(raw[m], self.channels) for m in MODALITIES}, self.targets[key.index])


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

    def reader(self, modality: str, spec: DataSpec) -> Reader:
        return picture_reader(spec.modalities[modality], lambda image: scaled(image, self.channels))

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        root = Path(self.root)
        if self.channels not in ("rgb", "bgr"):
            raise UserError(f"data.channels={self.channels} is no order of channels; use bgr or rgb")
        if strange := set(self.lists) - {"train", "val", "test"}:
            raise UserError(f"data.lists has {', '.join(sorted(strange))}; its keys are train, val and test")
        shape, splits = (3, self.image_size, self.image_size), dict[str, Split]()
        folders: dict[str, set[str]] = {}
        with self.open_root(f"where Training, Val, Testing and the lists lie: {SOURCE}") as audit:
            for split in ("train", "val", "test"):
                if name := self.lists.get(split):
                    triplets = read_triplets(root, name, folders, audit.problems)
                    every = [path for paths, _ in triplets.values() for path in paths]
                    absent = [str(path.relative_to(root)) for path in every if not exists(path, folders)]
                    audit.damaged.add(f"{name}: not in {root}", absent, f"get them from {SOURCE}")
                    seed = self.run_seed if split == "train" else None
                    splits[split] = Faces(triplets, self.image_size, self.channels, seed)
                elif split != "val":
                    audit.problems.append(f"data.lists.{split} is empty; give the name of a list in {root}")
        for split, data in splits.items():
            log.info("%s: %d samples, %d live", split, len(data), sum(data.targets))
        modalities = {m: Modality("image", shape) for m in MODALITIES}
        spec = DataSpec("classification", len(CLASSES), len(splits["train"]), modalities, CLASSES)
        return replace(spec, metrics=("presentation_attack",), primary=self.primary), splits


def scaled(image: np.ndarray, channels: str) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32, (x - 127.5) / 128."""
    ordered = image[..., ::-1].copy() if channels == "bgr" else image
    return ((torch.from_numpy(ordered).float() - 127.5) / 128).movedim(-1, 0)
