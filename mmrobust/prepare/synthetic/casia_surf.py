"""A small CASIA-SURF, made up, in the challenge's layout."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIZES = {"color": (40, 30), "depth": (24, 20), "ir": (28, 24)}  # (height, width): they differ


def make(root: Path, *, each: int = 4) -> None:
    """`each` live and spoof triplets in val and test, twice as many in train, and the lists."""
    for name, folder, count in (
        ("train_list", "Training", 2 * each),
        ("val_private_list", "Val", each),
        ("test_private_list", "Testing", each),
    ):
        rows = []
        for i in range(2 * count):
            live = i % 2
            video = f"{folder}/{'real' if live else 'fake'}_part/CLKJ_AS{i:04d}/{'real' if live else '04_en_b'}.rssdk"
            paths = [
                f"{video}/{m}/1.jpg" if folder == "Training" else f"{folder}/0000/{i:06d}-{m}.jpg"
                for m in SIZES
            ]
            for (m, size), path in zip(SIZES.items(), paths, strict=True):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                image = np.full((*size, 3), 60 + 100 * live, np.uint8)
                image[:, : size[1] // 2, 2 if m == "color" else slice(None)] = (
                    220  # the left is red or bright
                )
                cv2.imwrite(str(root / path), image)
            rows.append(" ".join([*paths, str(live)]))
        (root / f"{name}.txt").write_text("\n".join(rows) + "\n")
