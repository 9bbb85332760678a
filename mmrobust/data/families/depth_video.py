"""Depth videos of one person without background, in MATLAB files: cut out the person, make it small, keep that."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mmrobust.data.files.kept import cached
from mmrobust.data.files.matlab import read_mat
from mmrobust.errors import UserError

FOCAL = 285.6  # pixels, of the first Kinect at 320 × 240
WINDOW = 2.0  # metres: the side of the square that is cut out, a person with the arms up
VERSION = 1  # of this file's arithmetic: another one makes another entry in the cache


def cropped_video(path: Path, variable: str, size: int, folder: Path | None) -> np.ndarray:
    """All frames of a file (H, W, N), each the same square of 2 m around the person: (N, size, size) uint16 mm, 0
    where nothing was seen. Kept in `folder`.

    Raises:
        UserError: the file is missing, damaged or of another shape.
    """

    def decode() -> np.ndarray:
        (video,) = read_mat(path, variable)
        if video.ndim != 3 or 0 in video.shape or video.dtype.kind not in "fiu":
            raise UserError(
                f"{path} holds {video.dtype} numbers of shape {video.shape}, not (height, width, frames) of depth in "
                "mm; get it again"
            )
        frames = np.ascontiguousarray(video.transpose(2, 0, 1))
        if not np.isfinite(frames).all() or frames.min() < 0 or frames.max() > 65535:
            raise UserError(f"{path} holds numbers that are no depth in mm (0 to 65535); get it again")
        return cut_out(frames, size)

    return cached(folder, path.stem, [path], f"cropped_video {VERSION} {variable} {size}", decode)


def cut_out(frames: np.ndarray, size: int) -> np.ndarray:
    """(N, H, W) mm -> (N, size, size) uint16 mm: a square whose lower edge is the lowest place that was seen."""
    seen = frames > 0
    count = seen.sum(0)
    if not count.any():
        return np.zeros((len(frames), size, size), np.uint16)
    side = max(round(FOCAL * WINDOW * 1000 / float(np.median(frames[seen]))), 1)
    columns = np.cumsum(count.sum(0))
    centre = int(np.searchsorted(columns, columns[-1] / 2))
    bottom = int(np.flatnonzero(count.any(1))[-1]) + 1
    left = centre - side // 2
    width = frames.shape[2]
    rows = slice(max(bottom - side, 0), bottom)
    inside = slice(max(left, 0), min(left + side, width))
    square = np.zeros((side, side), np.float32)
    small = []
    for frame in frames:
        square[side - (rows.stop - rows.start) :, inside.start - left : inside.stop - left] = frame[
            rows, inside
        ]
        small.append(shrunk(square, size))
    return np.stack(small)


def shrunk(frame: np.ndarray, size: int) -> np.ndarray:
    """(S, S) -> (size, size) uint16: means of what was seen, 0 where that is less than half."""
    share = cv2.resize((frame > 0).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    total = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
    return np.where(share >= 0.5, np.rint(total / np.maximum(share, 1e-6)), 0).astype(np.uint16)


def normalised_depth(video: np.ndarray) -> np.ndarray:
    """(T, H, W) metres -> how far in front of the body's median, plus 1; 0 where nothing was seen."""
    seen = video > 0
    middle = np.median(video[seen]) if seen.any() else 0.0
    return np.where(seen, 1 + middle - video, 0)
