"""Motion as joints of a skeleton and as signals of an inertial sensor, in MATLAB files: read, check, resample."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmrobust.data.files.matlab import read_mat
from mmrobust.errors import UserError

JOINTS, CHANNELS = (
    20,
    6,
)  # of the first Kinect; of the sensor: acceleration (g), rotation (degrees/s), three axes each
HIP, NECK = 3, 1  # rows of the joints "hip centre" and "shoulder centre", numbers 4 and 2


def read_skeleton(path: Path) -> np.ndarray:
    """Joints in metres, (20, 3, N)."""
    return checked(path, read_mat(path, "d_skel")[0], (JOINTS, 3, None))


def read_inertial(path: Path) -> np.ndarray:
    """Acceleration and rotation, (6, N)."""
    return checked(path, read_mat(path, "d_iner")[0], (None, CHANNELS)).T


def checked(path: Path, array: np.ndarray, shape: tuple[int | None, ...]) -> np.ndarray:
    """The array as float64, if it is of that shape (None: anything above 0) and finite.

    Raises:
        UserError: it is not.
    """
    fits = array.ndim == len(shape) and all(
        n == m if m else n > 0 for n, m in zip(array.shape, shape, strict=False)
    )
    if not fits or array.dtype.kind not in "fiu":
        expected = ", ".join("N" if n is None else str(n) for n in shape)
        raise UserError(
            f"{path} holds {array.dtype} numbers of shape {array.shape}, not ({expected}); get it again"
        )
    if not np.isfinite(array).all():
        raise UserError(f"{path} holds numbers that are not finite; get it again")
    return array.astype(np.float64)


def resampled(x: np.ndarray, steps: int, start: float, end: float) -> np.ndarray:
    """(..., N) -> (..., steps), linearly interpolated from `start` to `end` (shares of the length)."""
    last = x.shape[-1] - 1
    moments = np.linspace(start * last, end * last, steps)
    before = np.minimum(moments.astype(int), max(last - 1, 0))
    weight = moments - before
    return x[..., before] * (1 - weight) + x[..., np.minimum(before + 1, last)] * weight


def normalised_skeleton(joints: np.ndarray) -> np.ndarray:
    """(20, 3, T) metres -> the hip at the origin of every frame, the mean length from hip to neck 1."""
    centred = joints - joints[HIP]
    length = np.linalg.norm(centred[NECK], axis=0).mean()
    return centred / max(length, 1e-6)
