"""Atomic writing of figures. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmrobust.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a picture of the kind that its name says."""
    with replacing(path) as part:
        figure.savefig(part, dpi=dpi, format=path.suffix.removeprefix(".") or "png")
