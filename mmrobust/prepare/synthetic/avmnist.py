"""A small AV-MNIST, made up, in the forms of MNIST and FSDD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile


def make(root: Path) -> None:
    """120 and 12 images of every digit, twelve recordings of every digit by one speaker."""
    rng = np.random.default_rng(0)
    for half, count in (("train", 1200), ("t10k", 120)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        write_idx(
            root / f"MNIST/raw/{half}-images-idx3-ubyte",
            rng.integers(0, 256, (count, 28, 28), dtype=np.uint8),
        )
        write_idx(root / f"MNIST/raw/{half}-labels-idx1-ubyte", labels)
    folder = root / "free-spoken-digit-dataset/recordings"
    folder.mkdir(parents=True)
    for digit in range(10):
        for number in (0, 1, *range(5, 15)):
            wave = 0.1 * rng.standard_normal(3000)
            soundfile.write(folder / f"{digit}_theo_{number}.wav", wave, 8000, subtype="PCM_16")


def write_idx(path: Path, array: np.ndarray) -> None:
    """MNIST's format: magic number 2048 + dimensions, big-endian sizes, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = np.array([2048 + array.ndim, *array.shape], dtype=">i4").tobytes()
    path.write_bytes(head + array.astype(np.uint8).tobytes())
