"""What is made, to files: whole contents at once, so that an error of the disk says which file and why."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import soundfile

from mmrobust.files import naming


def write_bytes(path: Path, content: bytes) -> None:
    """A file, in folders that need not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        path.write_bytes(content)


def write_rgb(path: Path, image: np.ndarray) -> None:
    """(H, W, 3) uint8 as PNG."""
    write_map(path, image[..., ::-1])


def write_map(path: Path, numbers: np.ndarray) -> None:
    """(H, W) uint8 or uint16 as PNG."""
    write_bytes(path, cv2.imencode(".png", np.ascontiguousarray(numbers))[1].tobytes())


def write_array(path: Path, array: np.ndarray) -> None:
    """As .npy."""
    content = io.BytesIO()
    np.save(content, array)
    write_bytes(path, content.getvalue())


def write_sound(path: Path, wave: np.ndarray, rate: int) -> None:
    """(T,) int16 as a wav of 16 bits."""
    content = io.BytesIO()
    soundfile.write(content, wave, rate, format="WAV", subtype="PCM_16")
    write_bytes(path, content.getvalue())


def write_frames(folder: Path, frames: list[bytes]) -> None:
    """JPEG files as 00001.jpg and so on."""
    for number, frame in enumerate(frames, start=1):
        write_bytes(folder / f"{number:05d}.jpg", frame)
