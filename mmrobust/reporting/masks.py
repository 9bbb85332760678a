"""Maps of classes as PNG files: with a palette, and over the image."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from mmrobust.errors import UserError
from mmrobust.files import replacing, short_hash
from mmrobust.reporting.cells import palette

OVERLAY = 0.5  # share of the colours of classes
LONGEST = 200  # letters of a file's name


def write_mask(folder: Path, name: str, mask: np.ndarray, count: int) -> Path:
    """Write the classes (H, W) of one sample, whose colours are those of the panel; returns the file.

    Raises:
        UserError: more classes than a palette has colours.
    """
    if count > 256:
        raise UserError(f"{count} classes are more than the 256 that a mask with a palette can hold")
    image = Image.fromarray(mask.astype(np.uint8), "P")
    image.putpalette(_colours(count).tobytes())
    return _written(folder / f"{file_name(name)}.png", image)


def write_overlay(folder: Path, name: str, mask: np.ndarray, pixels: np.ndarray, count: int) -> Path:
    """Write the same over an image (H, W, 3) uint8."""
    mixed = (1 - OVERLAY) * pixels + OVERLAY * _colours(count)[mask]
    return _written(
        folder / f"{file_name(name)}_overlay.png", Image.fromarray(mixed.round().astype(np.uint8))
    )


def file_name(name: str) -> str:
    """A sample's name as that of a file, such that no two samples share one."""
    quoted = quote(name, safe=" ()+,=@")
    if name.startswith(".") or len(quoted) > LONGEST:
        return f"{quoted[:LONGEST].lstrip('.')}-{short_hash(name, 8)}"
    return quoted


def _colours(count: int) -> np.ndarray:
    """(count, 3) uint8."""
    return (255 * np.array(palette(count))).round().astype(np.uint8)


def _written(path: Path, image: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        image.save(part, "PNG")
    return path
