"""A small SUN RGB-D, made up, in its official form."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import scipy.io

SIZES = ((24, 32), (22, 36), (28, 30))  # (height, width): they differ
FOLDERS = ("kv2/kinect2data/{:06d}_resize", "xtion/sun3ddata/home/scan{}/frame", "kv1/b3dodata/img_{:04d}")
KINDS = ("office", "bedroom", "kitchen", "idk")


def rotated(millimetres: np.ndarray) -> np.ndarray:
    """What a file holds for whole millimetres."""
    value = millimetres.astype(np.uint16)
    return ((value << 3) | (value >> 13)).astype(np.uint16)


def make(root: Path, *, count: int = 24) -> None:
    """As it is distributed; every third frame is for testing, some are farther than 8 m."""
    rng = np.random.default_rng(0)
    names = [FOLDERS[i % 3].format(i) for i in range(count)]
    meta, labels = [], []
    for i, name in enumerate(names):
        folder, size = root / "SUNRGBD" / name, SIZES[i % 3]
        label = rng.integers(0, 38, size).astype(np.uint8)
        label[:, : size[1] // 2] = 1 + i % 3
        depth = 1000 + 20 * label.astype(int) + rng.integers(0, 8, size)
        depth[:2] = 9000
        raw = np.where(rng.random(size) < 0.2, 0, depth)
        for part in ("image", "depth", "depth_bfx"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        rgb = (20 + 6 * label[..., None] * [1.0, 0.5, 0.2]).astype(np.uint8)
        cv2.imwrite(str(folder / f"image/{i:07d}.jpg"), rgb)
        cv2.imwrite(str(folder / f"depth/{i:07d}_abs.png"), rotated(raw))
        cv2.imwrite(str(folder / f"depth_bfx/{i:07d}_abs.png"), rotated(depth))
        (folder / "scene.txt").write_text(KINDS[i % len(KINDS)] + ("\n" if i % 2 else ""))
        labels.append(label)
        meta.append({"rgbpath": f"/n/fs/sun3d/data/SUNRGBD/{name}//image/{i:07d}.jpg"})
    toolbox = root / "SUNRGBDtoolbox"
    for part in ("Metadata", "traintestSUNRGBD"):
        (toolbox / part).mkdir(parents=True)
    # Prefixes, doubled and trailing slashes differ, as they do in the copies that are around.
    paths = [f"/data1/SUNRGBD//{name}/" if i % 2 else f"/n/fs/SUNRGBD/{name}" for i, name in enumerate(names)]
    parts = {
        "alltrain": [p for i, p in enumerate(paths) if i % 3],
        "alltest": [p for i, p in enumerate(paths) if i % 3 == 0],
    }
    cells = {key: np.array(part, dtype=object)[None] for key, part in parts.items()}
    scipy.io.savemat(toolbox / "traintestSUNRGBD/allsplit.mat", cells)
    order = rng.permutation(count)
    table = np.array(
        [(meta[i]["rgbpath"], "x") for i in order], dtype=[("rgbpath", object), ("rgbname", object)]
    )
    scipy.io.savemat(toolbox / "Metadata/SUNRGBDMeta.mat", {"SUNRGBDMeta": table[None]})
    with h5py.File(toolbox / "Metadata/SUNRGBD2Dseg.mat", "w", userblock_size=512) as file:
        refs = file.create_dataset(
            "SUNRGBD2Dseg/seglabel", (count, 1), dtype=h5py.special_dtype(ref=h5py.Reference)
        )
        for row, i in enumerate(order):
            refs[row, 0] = file.create_dataset(f"#refs#/{row}", data=labels[i].T.astype(float)).ref
