"""A small `handwritten_6views.mat`, made up: `make_handwritten(root)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from mmrobust.data.handwritten import FILE, VIEWS


def arrays(*, train: int = 8, test: int = 2) -> dict[str, Any]:
    """Variables of the file with so many of every digit; a feature's mean is its digit, mor's a thousand times that."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for half, count in (("train", train), ("test", test)):
        digits = np.repeat(np.arange(10), count)
        found[f"gt_{half}"] = (digits + 1).astype(np.uint8)[:, None]
        for i, (view, size) in enumerate(VIEWS.items(), start=1):
            x = digits[:, None] + rng.random((len(digits), size))
            found[f"x{i}_{half}"] = (x * (1000 if view == "mor" else 1)).astype(
                np.uint16 if view == "fac" else float
            )
    return found


def make_handwritten(root: Path, **changes: Any) -> None:
    """With some variables replaced; None leaves one out."""
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / FILE, {k: v for k, v in (arrays() | changes).items() if v is not None})
