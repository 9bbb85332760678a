"""Readers, which convert one raw input, from a file or from memory, to the tensor that a network takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mmrobust.data.files.folders import PICTURES
from mmrobust.data.files.images import read_frames, read_image, resize, transformed
from mmrobust.data.spec import Modality
from mmrobust.errors import UserError
from mmrobust.files import foreign_content, is_pointer


@dataclass(frozen=True)
class Input:
    """An input after reading.

    Args:
        tensor: a tensor of the modality's shape and type.
        size: (height, width) of an image or a depth map before scaling; None for other kinds.
    """

    tensor: Tensor
    size: tuple[int, int] | None


@dataclass(frozen=True)
class Reader:
    """Reads inputs of one modality as a dataset does in testing. It has no state, so any thread may call it.

    Args:
        modality: kind and shape of the resulting tensors.
        load: converts a file to the input of `finish`. Raises a UserError that names the file.
        accept: converts an object in memory, such as an array, to the input of `finish`. Raises a UserError.
        finish: converts the result of `load` or `accept` to a tensor.
        folder: whether `load` also takes a folder with the frames of a clip.
    """

    modality: Modality
    load: Callable[[Path], Any]
    accept: Callable[[Any], Any]
    finish: Callable[[Any], Tensor]
    folder: bool = False

    @property
    def of_text(self) -> bool:
        """Whether a `str` is the input itself instead of the name of a file."""
        return self.modality.kind == "text"

    def __call__(self, raw: Any) -> Input:
        """Read one input.

        Args:
            raw: a path; an array with the content of such a file; a PIL image; a waveform, or a pair of waveform and
                sample rate (Hz); a text. A tensor counts as prepared.

        Raises:
            UserError: the input is missing, damaged, or of another kind or shape than the modality.
        """
        if isinstance(raw, Tensor):
            return prepared(raw, self.modality)
        if isinstance(raw, Path) or (isinstance(raw, str) and not self.of_text):
            check_file(Path(raw), folder=self.folder)
            x = self.load(Path(raw))
        else:
            x = self.accept(raw)
        tensor = self.finish(x)
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError("it holds NaN or infinity; mend it or leave it out")
        return Input(tensor, (x.shape[0], x.shape[1]) if self.modality.kind in ("image", "depth") else None)


def prepared(tensor: Tensor, modality: Modality) -> Input:
    """Accept a prepared tensor. Raises: UserError: the tensor has another shape or type."""
    expected, dtype = tuple(modality.shape), modality.traits.dtype
    if tuple(tensor.shape) != expected or tensor.is_floating_point() != dtype.is_floating_point:
        raise UserError(
            f"a tensor {tuple(tensor.shape)} of {tensor.dtype} was given; a tensor is taken as it is, so expected is "
            f"{expected} of {dtype}, normalised; give raw values as an array"
        )
    if not tensor.isfinite().all():
        raise UserError("the tensor holds NaN or infinity; mend it or leave it out")
    maps = modality.kind in ("image", "depth")
    return Input(tensor.detach().cpu().to(dtype), (expected[-2], expected[-1]) if maps else None)


def check_file(path: Path, *, folder: bool) -> None:
    """Check a file. Raises: UserError: it does not exist, is a folder (unless `folder`), empty, or a git-LFS pointer."""
    try:
        if path.is_dir():
            if not folder:
                raise UserError(f"{path} is a folder; name a file")
            return
        if not path.is_file():
            raise UserError(f"{path} does not exist, or is no file")
        if not path.stat().st_size:
            raise UserError(f"{path} is empty; get it again")
        if is_pointer(path):
            raise UserError(f"{path}: {foreign_content(path)}")
    except (OSError, ValueError) as error:  # a name too long, or with a zero byte
        raise UserError(f"{str(path)!r} cannot be opened: {error}") from error


def numbers_of(raw: Any) -> np.ndarray:
    """Convert a PIL image, or any object that NumPy takes, to an array of numbers. Raises: UserError: it is none."""
    if isinstance(raw, Image.Image):
        return np.array(ImageOps.exif_transpose(raw))
    try:
        array = np.asarray(raw)
    except (ValueError, TypeError) as error:
        raise UserError(f"a {type(raw).__name__} is no array of numbers: {error}") from error
    if array.dtype.kind not in "buif" or not array.size:
        raise UserError(
            f"a {type(raw).__name__} {array.shape} of {array.dtype} is no array of numbers; give a path or an array"
        )
    return array


def colours_of(raw: Any) -> np.ndarray:
    """Convert a PIL image of any mode, or an array (H, W, 3) or (H, W), to (H, W, 3) uint8. Raises: UserError: `raw`
    has another shape or type."""
    if isinstance(raw, Image.Image):
        return np.array(ImageOps.exif_transpose(raw).convert("RGB"))
    x = numbers_of(raw)
    x = np.repeat(x[..., None], 3, -1) if x.ndim == 2 else x
    if x.ndim != 3 or x.shape[2] != 3 or x.dtype != np.uint8:
        raise UserError(
            f"an array {x.shape} of {x.dtype} is no image; expected pixels (H, W, 3) of uint8, RGB"
        )
    return x


def depth_of(raw: Any) -> np.ndarray:
    """Convert numbers in the units of depth files to (H, W) float32. Raises: UserError: `raw` has another shape."""
    x = numbers_of(raw)
    x = x[..., 0] if x.ndim == 3 and x.shape[2] == 1 else x
    if x.ndim != 2:
        raise UserError(f"an array {x.shape} is no depth; expected (H, W)")
    return x.astype(np.float32)


def frames_of(raw: Any) -> np.ndarray:
    """Convert an array (T, H, W, 3) or a list of images to (T, H, W, 3) uint8. Raises: UserError: `raw` has another
    shape or type."""
    if isinstance(raw, list | tuple):
        raw = np.stack([colours_of(frame) for frame in raw]) if raw else raw
    x = numbers_of(raw)
    if x.ndim != 4 or x.shape[3] != 3 or x.dtype != np.uint8:
        raise UserError(
            f"an array {x.shape} of {x.dtype} is no clip; expected frames (T, H, W, 3) of uint8, RGB"
        )
    return x


def text_of(raw: Any) -> str:
    """Return the text. Raises: UserError: `raw` is no str."""
    if not isinstance(raw, str):
        raise UserError(f"a {type(raw).__name__} is no text; give a str")
    return raw


def read_clip(path: Path) -> np.ndarray:
    """Read the frames of a folder in the order of their names, or a single file, to (T, H, W, 3) uint8."""
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.glob("[!.]*") if file.suffix in PICTURES)
    if not files:
        raise UserError(f"the folder {path} holds no frames ({', '.join(PICTURES[:3])}); extract them")
    return read_frames(files)


def evenly(frames: np.ndarray, count: int) -> np.ndarray:
    """Select `count` evenly spaced frames of (T, ...), with the rule of `images.choose_frames`."""
    return frames[((np.arange(count) + 0.5) * len(frames) / count).astype(int)]


def picture_reader(modality: Modality, finish: Callable[[np.ndarray], Tensor]) -> Reader:
    """Build a reader of colour images, which are resized to (side, side, 3) uint8, at any aspect ratio, before `finish`."""
    side = modality.shape[-1]

    def scaled(image: np.ndarray) -> Tensor:
        return finish(transformed(resize(side), 0, image=image)["image"])

    return Reader(modality, read_image, colours_of, scaled)


def vector_reader(modality: Modality, load: Callable[[Path], np.ndarray], mean: Any, std: Any) -> Reader:
    """Build a reader of vectors (D,), standardised in float64 by `mean` and `std`, (D,) each."""
    length = modality.shape[0]
    shift, scale = np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64)

    def finish(x: np.ndarray) -> Tensor:
        if x.size != length:
            raise UserError(f"it has {x.size} numbers, where {length} were expected")
        return torch.from_numpy(((x.ravel() - shift) / scale).astype(np.float32))

    return Reader(modality, load, numbers_of, finish)
