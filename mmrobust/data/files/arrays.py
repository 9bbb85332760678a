"""Files of any kind that can be read, told by their names; arrays in .npy files, and how their axes lie."""

from __future__ import annotations

import io
import math
import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmrobust.data.files import images
from mmrobust.data.table.csv_file import TYPES as TYPES
from mmrobust.data.table.csv_file import type_of as type_of
from mmrobust.errors import UserError

BY_AXES = (None, "vector", "sequence", "image", "video")  # what an array is taken for


def read_array(path: Path) -> np.ndarray:
    """The array in a .npy file. Raises: UserError: missing, damaged, not of numbers."""
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # whatever a damaged file makes of NumPy
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as an array ({reason}); save it with numpy.save") from error
    if not isinstance(array, np.ndarray):  # an .npz by another name
        array.close()
        raise UserError(f"{path} is an archive of several arrays; save one of them with numpy.save")
    _check_numbers(path, array.shape, array.dtype)
    return array


def _check_numbers(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if dtype.kind not in "buif" or not math.prod(shape):
        raise UserError(f"{path} holds {shape} of {dtype}; expected numbers")


def _array_header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """What `np.load` with a memory map says, ten times as fast: a table may name a hundred thousand files."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
            sizes = {b"\x93NUMPY\x01": start[8:10], b"\x93NUMPY\x02": start[8:12]}
            size = sizes.get(start[:7])
            head = b"" if size is None else start + file.read(int.from_bytes(size, "little") + len(size) - 4)
            held = os.fstat(file.fileno()).st_size
        if not head:
            array = read_array(path)
            return array.shape, array.dtype
        shape, dtype = _parsed(head)
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file makes of NumPy
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as an array ({reason}); save it with numpy.save") from error
    _check_numbers(path, shape, dtype)
    if held < (needed := len(head) + math.prod(shape) * dtype.itemsize):
        raise UserError(f"{path} is cut short: {held} of {needed} bytes; save it again with numpy.save")
    return shape, dtype


@lru_cache(maxsize=1000)
def _parsed(head: bytes) -> tuple[tuple[int, ...], np.dtype]:
    file = io.BytesIO(head)
    read = np.lib.format.read_array_header_1_0
    if np.lib.format.read_magic(file) == (2, 0):
        read = np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of numbers of an image or array file, without reading all of it."""
    return images.header(path) if type_of(path) == "images" else _array_header(path)


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
