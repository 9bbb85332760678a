"""Small made-up clips: a tone and striped frames that depend on the class."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import soundfile


def write_clip(
    sound: Path, folder: Path, label: int, seconds: float, size: tuple[int, int], frames: int = 3
) -> None:
    """A wav (8 kHz) and `frames` jpgs of a size (height, width)."""
    sound.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True)
    time = np.arange(round(8000 * seconds)) / 8000
    soundfile.write(sound, 0.5 * np.sin(2 * np.pi * 200 * (label + 1) * time), 8000, subtype="PCM_16")
    for frame in range(frames):
        image = np.full((*size, 3), 40 * (label + 1), np.uint8)
        image[frame::8] = 255
        cv2.imwrite(str(folder / f"{frame + 1:05d}.jpg"), image)
