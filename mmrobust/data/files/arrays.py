"""Files of any kind that can be read, told by their names; arrays in .npy files, and how their axes lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmrobust.data.files import images
from mmrobust.errors import UserError

TYPES = {  # of files, by the ends of their names
    "images": (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"),
    "sounds": (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".au"),
    "arrays": (".npy",),
}
BY_AXES = (None, "vector", "sequence", "image", "video")  # what an array is taken for


def type_of(path: Path) -> str | None:
    """`images`, `sounds`, `arrays`; None for any other file."""
    return next((name for name, ends in TYPES.items() if path.suffix.lower() in ends), None)


def read_array(path: Path, head_only: bool = False) -> np.ndarray:
    """The array in a .npy file. Raises: UserError: missing, damaged, not of numbers."""
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r" if head_only else None)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as an array ({error}); save it with numpy.save") from error
    if array.dtype.kind not in "buif" or not array.size:
        raise UserError(f"{path} holds {array.shape} of {array.dtype}; expected numbers")
    return array


def header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of numbers of an image or array file, without reading all of it."""
    if type_of(path) == "images":
        return images.header(path)
    array = read_array(path, head_only=True)
    return array.shape, array.dtype


def _is_last(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether the channels come last: there are 1, 3 or 4, which the first axis has not, or it holds pixels."""
    return shape[-1] in (1, 3, 4) and (shape[0] not in (1, 3, 4) or (dtype == np.uint8 and shape[-1] == 3))


def last_shape(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """(H, W, C) of an array (H, W), (C, H, W) or (H, W, C)."""
    if len(shape) == 2:
        return (*shape, 1)
    if len(shape) != 3:
        raise UserError(f"an array of shape {shape} is no image; expected (H, W), (C, H, W) or (H, W, C)")
    return shape if _is_last(shape, dtype) else (*shape[1:], shape[0])


def channels_last(array: np.ndarray) -> np.ndarray:
    """(H, W), (C, H, W) or (H, W, C) -> (H, W, C)."""
    if array.ndim == 3 and not _is_last(array.shape, array.dtype):
        array = np.moveaxis(array, 0, -1)
    return array.reshape(last_shape(array.shape, array.dtype) if array.ndim != 3 else array.shape)


def shape_of(kind: str, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """The input's shape: channels first. Raises: UserError: an array that cannot be of the kind."""
    if kind == "vector":
        return (int(np.prod(shape)),)
    if len(shape) != BY_AXES.index(kind):
        raise UserError(f"an array of shape {shape} is no {kind}, which has {BY_AXES.index(kind)} axes")
    return (shape[-1], *shape[:-1]) if kind == "video" and _is_last(shape, dtype) else shape
