"""A small NYU Depth v2, made up, in its official form."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import scipy.io

SIZE = (24, 32)  # (height, width)
MAP_CLASS = (np.arange(894) % 40 + 1).astype(np.uint8)
KINDS = ("kitchen", "bedroom", "office", "basement", "cafe")


def make(root: Path, *, count: int = 24, size: tuple[int, int] = SIZE) -> None:
    """As it is distributed: every third frame is for testing. Frames show walls, far and near, and a void border."""
    rng = np.random.default_rng(0)
    height, width = size
    labels = rng.integers(1, 895, (count, height, width)).astype(np.uint16)
    labels[:, :, : width // 2] = 1 + 40 * (np.arange(count) % 3)[:, None, None] % 894  # a wall on the left
    labels[:, 0] = 0
    rgb = (20 + 5 * MAP_CLASS[np.maximum(labels, 1) - 1][..., None] * [1.0, 0.5, 0.2]).astype(np.uint8)
    depths = (1 + labels / 200 + rng.random(labels.shape) / 100).astype(np.float32)
    raw = np.where(rng.random(labels.shape) < 0.2, 0, depths).astype(np.float32)
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        file["images"] = rgb.transpose(0, 3, 2, 1)
        for name, maps in (("depths", depths), ("rawDepths", raw), ("labels", labels)):
            file.create_dataset(name, data=maps.transpose(0, 2, 1), chunks=(1, width, height))
        kinds = file.create_dataset("sceneTypes", (1, count), dtype=h5py.special_dtype(ref=h5py.Reference))
        for i in range(count):
            text = np.array([[ord(c)] for c in KINDS[i % len(KINDS)]], dtype=np.uint16)
            kinds[0, i] = file.create_dataset(f"#refs#/{i}", data=text).ref
    numbers = np.arange(1, count + 1, dtype=np.uint16)[:, None]
    test = numbers[:, 0] % 3 == 0
    scipy.io.savemat(root / "splits.mat", {"trainNdxs": numbers[~test], "testNdxs": numbers[test]})
    scipy.io.savemat(root / "classMapping40.mat", {"mapClass": MAP_CLASS[None]})
