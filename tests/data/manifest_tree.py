"""Tables of files of every kind, made up: `make_manifest(root)` for classes, `make_masks(root)` for label images."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import soundfile

COLUMNS = ("rgb", "depth", "audio", "vector", "sequence", "video")


def make_manifest(root: Path, rows: int = 10) -> Path:
    """`my.csv` without a column split: classes cat and dog in turn, six modalities, row 0 has no audio; images from
    40 × 30 pixels on, sounds from 0.4 s on."""
    rng = np.random.default_rng(0)
    table = []
    for i in range(rows):
        for folder in COLUMNS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        light = 60 + 120 * (i % 2)
        image = np.full((40 + i, 30, 3), light, np.uint8) + rng.integers(
            0, 20, (40 + i, 30, 3), dtype=np.uint8
        )
        cv2.imwrite(str(root / f"rgb/{i}.jpg"), image)
        depth = rng.integers(1000, 4000, (40, 30)).astype(np.uint16)
        depth[:5] = 0
        cv2.imwrite(str(root / f"depth/{i}.png"), depth)
        wave = 0.3 * np.sin(np.arange(3200 + 100 * i) * (0.1 + 0.2 * (i % 2)))
        soundfile.write(root / f"audio/{i}.wav", wave, 8000)
        np.save(root / f"vector/{i}.npy", rng.normal(5, 2, 7))
        np.save(root / f"sequence/{i}.npy", rng.normal(0, 3, (4, 20)).astype(np.float32))
        np.save(root / f"video/{i}.npy", rng.integers(0, 255, (3, 16, 16, 3), dtype=np.uint8))
        ends = ("jpg", "png", "wav", "npy", "npy", "npy")
        files = {c: f"{c}/{i}.{end}" for c, end in zip(COLUMNS, ends, strict=True)}
        table.append({"id": f"s{i}", "label": ("cat", "dog")[i % 2], **files})
    table[0]["audio"] = ""
    return write_table(root / "my.csv", table)


def make_masks(root: Path, rows: int = 10) -> Path:
    """`my.csv` with a column mask: classes 0, 1, 2 in three stripes, the first line void; sizes differ."""
    rng = np.random.default_rng(0)
    table = []
    for i in range(rows):
        root.mkdir(parents=True, exist_ok=True)
        h, w = 48 + 2 * (i % 3), 64
        mask = np.repeat(np.arange(3, dtype=np.uint8), -(-w // 3))[None, :w].repeat(h, 0)
        image = 80 * np.stack([mask] * 3, -1) + rng.integers(0, 20, (h, w, 3), dtype=np.uint8)
        depth = (1000 + 1000 * mask.astype(np.uint16)) * (rng.random((h, w)) > 0.1)
        mask[0] = 255
        for name, x in (("rgb", image), ("depth", depth.astype(np.uint16)), ("mask", mask)):
            cv2.imwrite(str(root / f"{i}_{name}.png"), x)
        split = "test" if i > 7 else "val" if i > 6 else "train"
        files = {name: f"{i}_{name}.png" for name in ("rgb", "depth", "mask")}
        table.append({"id": f"s{i}", "split": split, **files})
    return write_table(root / "my.csv", table)


def write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """The rows as a CSV with a header."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    """What `write_table` wrote."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
