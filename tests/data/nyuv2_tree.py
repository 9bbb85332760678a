"""A small NYU Depth v2, made up, in both forms: `make_nyuv2(root)` and `prepare_nyuv2(official, prepared)`."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import scipy.io

SIZE = (24, 32)  # (height, width)
MAP_CLASS = (np.arange(894) % 40 + 1).astype(np.uint8)
KINDS = ("kitchen", "bedroom", "office", "basement", "cafe")


def make_nyuv2(root: Path, *, count: int = 24, size: tuple[int, int] = SIZE) -> None:
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


def prepare_nyuv2(official: Path, root: Path) -> None:
    """The prepared form of an official one."""
    from mmrobust.data.families.indoor_classes import LABELS_13

    splits = scipy.io.loadmat(official / "splits.mat")
    to_40 = np.concatenate([[0], MAP_CLASS]).astype(np.uint8)
    to_13 = np.concatenate([[0], LABELS_13]).astype(np.uint8)
    with h5py.File(official / "nyu_depth_v2_labeled.mat") as file:
        for split in ("train", "test"):
            numbers = splits[f"{split}Ndxs"].ravel()
            for i in numbers:
                label = file["labels"][i - 1].T
                write = {
                    "rgb": file["images"][i - 1].transpose(2, 1, 0)[..., ::-1],
                    "depth": (file["depths"][i - 1].T * 1e3).astype(np.uint16),
                    "depth_raw": (file["rawDepths"][i - 1].T * 1e3).astype(np.uint16),
                    "labels_894": label,
                    "labels_40": to_40[label],
                    "labels_13": to_13[to_40[label]],
                }
                for part, image in write.items():
                    path = root / split / part / f"{i:04d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(path), image)
            (root / f"{split}.txt").write_text("".join(f"{i:04d}\n" for i in numbers))
