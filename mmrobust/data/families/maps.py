"""Maps of numbers, one a pixel: depth, and labels, whose numbers a table turns into classes. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mmrobust.data.files import images
from mmrobust.errors import UserError

VOID = 255  # label of pixels that do not count


def as_classes(numbers: np.ndarray, table: np.ndarray, where: str) -> np.ndarray:
    """(H, W) uint8: what the table gives for each of the whole numbers of a label.

    Args:
        numbers: (H, W), whole, of any type.
        table: (K,) uint8: the class, or VOID, of 0 to K - 1.
        where: the label, for messages.

    Raises:
        UserError: a number is outside of the table.
    """
    whole = numbers if numbers.dtype.kind in "iu" else numbers.astype(np.int64)  # MATLAB's are often doubles
    if not np.array_equal(whole, numbers):
        raise UserError(f"{where} holds {numbers.dtype} numbers that are not whole; get the label again")
    numbers = whole
    if numbers.min(initial=0) < 0 or numbers.max(initial=0) >= len(table):
        beyond = np.unique(numbers[(numbers < 0) | (numbers >= len(table))])
        raise UserError(
            f"{where} has labels outside of 0 to {len(table) - 1}: {', '.join(map(str, beyond[:5].tolist()))}; get it "
            "again, or check data.classes and which labels these are"
        )
    return table[numbers]


def depth_map(path: Path) -> np.ndarray:
    """(H, W) float32, the numbers of an image file as they are."""
    return images.read_map(path).astype(np.float32)


def label_map(path: Path, table: np.ndarray) -> np.ndarray:
    """(H, W) uint8, classes of an image file of whole numbers, see `as_classes`."""
    return as_classes(images.read_map(path), table, str(path))


def from_one(count: int) -> np.ndarray:
    """The table of labels 1 to `count`, 0 being void: (count + 1,) uint8."""
    return np.concatenate([[VOID], np.arange(count)]).astype(np.uint8)


def median_frequency(labels: Iterable[np.ndarray], classes: int) -> list[float]:
    """A weight for each class (Eigen and Fergus, ICCV 2015): median(f) / f_c, where f_c are the pixels of class c over
    all pixels, void ones too, of the labels in which it occurs; the median is that of the classes that occur. The
    others get 1.

    Args:
        labels: (H, W) uint8 each, VOID where nothing counts.
        classes: how many there are.
    """
    pixels, of_images = np.zeros(classes), np.zeros(classes)
    for label in labels:
        counts = np.bincount(label.ravel(), minlength=VOID + 1)[:classes]
        pixels += counts
        of_images += (counts > 0) * label.size
    occurs = pixels > 0
    frequency = pixels[occurs] / of_images[occurs]
    weights = np.ones(classes)
    weights[occurs] = np.median(frequency) / frequency
    return [float(weight) for weight in weights]
