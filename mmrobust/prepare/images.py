"""Images to files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mmrobust.files import naming


def write_rgb(path: Path, image: np.ndarray) -> None:
    """(H, W, 3) uint8 as PNG."""
    write_map(path, image[..., ::-1])


def write_map(path: Path, numbers: np.ndarray) -> None:
    """(H, W) uint8 or uint16 as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        path.write_bytes(cv2.imencode(".png", np.ascontiguousarray(numbers))[1].tobytes())
