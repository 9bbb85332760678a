"""A small Cityscapes, made up, in its official form."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

SIZE = (24, 48)  # (height, width)
CITIES = {"train": ("aachen", "bochum"), "val": ("lindau",)}


def make(root: Path, *, each: int = 8) -> None:
    """`each` frames a city, as they are distributed."""
    rng = np.random.default_rng(0)
    for split, cities in CITIES.items():
        for city in cities:
            for i in range(each):
                name = f"{city}_{i:06d}_000019"
                label = rng.integers(0, 34, SIZE).astype(np.uint8)
                label[:, : SIZE[1] // 2] = (7, 11, 26)[i % 3]
                shifted = rng.integers(2, 30000, SIZE).astype(np.uint16)
                shifted[rng.random(SIZE) < 0.2] = 0
                shifted[0, :4] = (1, 2, 3, 1000)
                rgb = (10 + 7 * label[..., None] * [1.0, 0.5, 0.2]).astype(np.uint8)
                write(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", rgb)
                write(root / f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png", label)
                write(root / f"disparity/{split}/{city}/{name}_disparity.png", shifted)
                camera = root / f"camera/{split}/{city}/{name}_camera.json"
                camera.parent.mkdir(parents=True, exist_ok=True)
                parameters = {"extrinsic": {"baseline": 0.209313}, "intrinsic": {"fx": 2262.52}}
                camera.write_text(json.dumps(parameters))


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
