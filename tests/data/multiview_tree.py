"""A small multi-view feature set, made up: `make_multiview(root)`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import savemat


def make_multiview(root: Path) -> None:
    """Three views of four classes, 20 samples of each; a feature's mean is its class."""
    root.mkdir(parents=True, exist_ok=True)
    rng, classes = np.random.default_rng(0), np.repeat(np.arange(4), 20)
    views = np.empty((3, 1), dtype=object)
    for i, size in enumerate((5, 9, 3)):
        views[i, 0] = classes[:, None] + rng.random((80, size))
    savemat(root / "set.mat", {"X": views, "Y": classes[:, None] + 1})
