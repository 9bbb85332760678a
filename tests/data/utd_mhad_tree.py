"""A small UTD-MHAD in its official layout, made up: `make_utd_mhad(root)`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from scipy.io import savemat

VARIABLES = {"depth": "d_depth", "skeleton": "d_skel", "inertial": "d_iner"}


def make_utd_mhad(
    root: Path, *, actions: Sequence[int] = (1, 27), subjects: Sequence[int] = (1, 2, 3, 4), trials: int = 4
) -> None:
    for i, (action, subject, trial) in enumerate(product(actions, subjects, range(1, trials + 1))):
        frames = 5 + i % 3
        write(root, f"a{action}_s{subject}_t{trial}", "depth", video(frames, size=2 + action % 4))
        write(root, f"a{action}_s{subject}_t{trial}", "skeleton", skeleton(frames, seed=i))
        rng = np.random.default_rng(i)
        signal = rng.normal(size=(2 * frames, 6)) * [1, 1, 1, 100, 100, 100] + action
        write(root, f"a{action}_s{subject}_t{trial}", "inertial", signal)


def write(root: Path, name: str, modality: str, array: np.ndarray) -> Path:
    path = root / modality.title() / f"{name}_{modality}.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {VARIABLES[modality]: array}, do_compression=True)
    return path


def video(frames: int, *, size: int = 4) -> np.ndarray:
    """(48, 64, T) uint16 mm: a box of 40 by 12 pixels, 10 m away, in front of it something that goes down."""
    x = np.zeros((48, 64, frames), np.uint16)
    x[6:46, 30:42] = 10_000
    for t in range(frames):
        x[6 + 4 * t : 6 + 4 * t + size, 30:36, t] = 9_500
    return x


def skeleton(frames: int, *, seed: int = 0) -> np.ndarray:
    """(20, 3, T) metres."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=(20, 2, frames)), rng.normal(2.8, 0.1, (20, 1, frames))], 1)
