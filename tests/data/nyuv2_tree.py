"""The prepared form of a small NYU Depth v2, written by hand: `prepare_nyuv2(official, prepared)`."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import scipy.io

from mmrobust.prepare.synthetic.nyuv2 import MAP_CLASS


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
