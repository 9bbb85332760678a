"""Image files to arrays, augmentation, tensors: the one place that knows OpenCV and albumentations."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from mmrobust import keyed
from mmrobust.data.files.jpeg import zeroed
from mmrobust.errors import UserError

if TYPE_CHECKING:
    import albumentations as A  # imported late elsewhere: it takes seconds, and not every run needs it
    from torch import Tensor  # imported late, too: files are read without it

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or its import would ask the network for news
cv2.setNumThreads(0)  # the loader's workers are the parallelism; OpenCV's threads would only fight them

ORIENTATION = 0x0112  # of a camera, in an image's Exif data
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def read_image(path: Path | str) -> np.ndarray:
    """Read an image file as RGB, (H, W, 3) uint8.

    Raises:
        UserError: the file is missing, cut short or not an image.
    """
    return cv2.cvtColor(_decoded(Path(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_map(path: Path | str) -> np.ndarray:
    """Read an image file of numbers, like depth or labels, as it is: (H, W) uint8 or uint16.

    Raises:
        UserError: the file is missing, cut short, not an image or has colours.
    """
    numbers = _decoded(Path(path), cv2.IMREAD_UNCHANGED)
    if numbers.ndim == 3 and (numbers[..., :3] == numbers[..., :1]).all():  # grey, stored as colour
        numbers = numbers[..., 0]
    if numbers.ndim != 2:
        raise UserError(
            f"image {path} has {numbers.shape[2]} channels, but one number a pixel was expected; a coloured copy of "
            "depth or of a label is of no use, take the numbers themselves"
        )
    return np.ascontiguousarray(numbers)


def read_indices(path: Path | str) -> np.ndarray:
    """Read an image file of labels, (H, W) of some type of integers: a palette's indices as they are, grey stored as
    colour as grey.

    Raises:
        UserError: the file is missing, damaged, compressed with losses or has colours.
    """
    with _opened(Path(path), decode=False) as image:
        if image.getexif().get(ORIENTATION, 1) != 1:  # which Pillow and OpenCV do not heed alike
            raise UserError(
                f"{path} is to be turned when shown (orientation tag); save the mask as it is to lie"
            )
        if image.format in ("JPEG", "WEBP"):
            raise UserError(f"{path} is a {image.format}, which blurs labels; save it as PNG")
        numbers = np.array(image)
    grey = numbers.shape[2:] == (2,)  # with alpha
    if grey or (numbers.ndim == 3 and (numbers[..., :3] == numbers[..., :1]).all()):
        numbers = numbers[..., 0]
    if numbers.dtype.kind not in "bui":
        raise UserError(f"{path} holds {numbers.dtype} numbers, but classes are whole; save it as integers")
    if numbers.ndim != 2:
        raise UserError(
            f"{path} has colours, but one class number a pixel was expected; export it with indices"
        )
    return numbers.astype(np.uint8) if numbers.dtype.kind == "b" else numbers


def header(path: Path | str) -> tuple[tuple[int, ...], np.dtype]:
    """What the head of an image file says: (H, W, 3) uint8 as `read_image` gives it, or (H, W) and another type if
    it holds one number a pixel of more than 8 bits.

    Raises:
        UserError: the file is missing or not an image.
    """
    with _opened(Path(path), decode=False) as image:
        # Of a TIFF, Pillow says the size that it has when turned.
        turned = image.format != "TIFF" and image.getexif().get(ORIENTATION, 1) > 4
        size = image.size if turned else image.size[::-1]
        wide = {"I": np.uint16, "F": np.float32}.get(image.mode[:1])
        return (size, np.dtype(wide)) if wide else ((*size, 3), np.dtype(np.uint8))


@contextmanager
def _opened(path: Path, decode: bool = True) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            if decode:
                image.load()
            yield image
    except FileNotFoundError as error:
        raise UserError(f"image {path} cannot be opened: {error.strerror}") from error
    except UserError:
        raise
    except Exception as error:  # whatever a damaged or huge file makes of Pillow
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as an image ({reason}); get or extract it again") from error


def _decoded(path: Path, how: int) -> np.ndarray:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"image {path} cannot be opened: {error.strerror}") from error
    # OpenCV paints the missing part of a cut image grey or black, so look for the end mark: of a JPEG after the last
    # scan's start; inside a scan neither can occur, and a thumbnail's end mark lies before the scan.
    cut = data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < max(data.rfind(b"\xff\xda"), 0)
    if cut or (data.startswith(b"\x89PNG") and b"IEND" not in data):
        raise UserError(f"image {path} is cut short after {len(data)} bytes; get or extract it again")
    if data.startswith(b"\xff\xd8") and zeroed(data):
        raise UserError(
            f"image {path} has a stretch of zeros within its pixels, as an interrupted copy leaves; get or extract it again"
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), how) if data else None
    except (cv2.error, MemoryError) as error:  # too many pixels, as a rule
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} cannot be read as an image ({reason}); make it smaller or get it again"
        ) from error
    if image is None:
        raise UserError(f"{path} ({len(data)} bytes) cannot be read as an image; get or extract it again")
    return image


def choose_frames(files: Sequence[Path], count: int, salts: tuple[int | str, ...] | None) -> list[Path]:
    """`count` of the frames of a clip, in order: distinct ones drawn by `salts` (see `keyed`), or evenly
    spaced (the middle one for 1) if that is None. If there are fewer than `count`, some come repeatedly."""
    if not files:
        return []
    chosen = ((np.arange(count) + 0.5) * len(files) / count).astype(int)
    if salts is not None and len(files) > count:
        chosen = np.sort(np.argsort(keyed.uniforms(len(files), *salts))[:count])
    return [files[i] for i in chosen]


def read_frames(paths: Sequence[Path]) -> np.ndarray:
    """Read the frames of one clip, (T, H, W, 3) uint8.

    Raises:
        UserError: a frame cannot be read, or the frames differ in size.
    """
    if not paths:
        raise UserError("the clip has no frames; extract them")
    frames = [read_image(path) for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        if frame.shape != frames[0].shape:
            raise UserError(
                f"frames of one clip differ in size: {paths[0]} has (height, width) {frames[0].shape[:2]}, "
                f"{path} {frame.shape[:2]}; extract them again"
            )
    return np.stack(frames)


def crop_and_flip(size: int) -> A.Compose:
    """For training: torchvision's RandomResizedCrop(size) and a horizontal flip with probability 1/2."""
    import albumentations as A

    crop = A.RandomResizedCrop(
        (size, size), scale=(0.08, 1), ratio=(3 / 4, 4 / 3), area_for_downscale="image"
    )
    return A.Compose([crop, A.HorizontalFlip(p=0.5)])


def resize(size: int) -> A.Compose:
    """For testing: the whole image as size × size, whatever its aspect ratio."""
    import albumentations as A

    return A.Compose([A.Resize(size, size, area_for_downscale="image")])  # linear alone would alias


def scaled_to(image: np.ndarray, size: tuple[int, int], *, nearest: bool = False) -> np.ndarray:
    """(H, W) or (H, W, C) of any numbers to the (height, width) `size`: averaged where it shrinks, else linear; or the
    nearest pixel, for depth and labels, whose numbers must not mix."""
    if image.shape[:2] == size:
        return image
    if image.ndim == 3 and image.shape[2] > 4:  # more than OpenCV's averaging takes
        return np.concatenate(
            [scaled_to(image[..., i : i + 4], size, nearest=nearest) for i in range(0, image.shape[2], 4)], -1
        )
    shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    scaled = cv2.resize(np.ascontiguousarray(image), size[::-1], interpolation=how)
    return scaled.reshape(*size, *image.shape[2:])


def rotated(image: np.ndarray, degrees: int, canvas: float) -> np.ndarray:
    """Rotate (H, W, 3) uint8 about its centre, counter-clockwise. The result shows the middle of the tight bounding
    box of the rotated image, `canvas` times its height and width; what lies outside the image is black."""
    height, width = image.shape[:2]
    centre = (width - 1) / 2, (height - 1) / 2
    matrix = np.asarray(cv2.getRotationMatrix2D(centre, degrees, 1.0), dtype=np.float64)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = int(canvas * (width * cos + height * sin)), int(canvas * (width * sin + height * cos))
    matrix[:, 2] += (np.array(size) - (width, height)) / 2
    return cv2.warpAffine(image, matrix, size)


def random_crop_and_flip(size: int) -> A.Compose:
    """For training: a size × size crop, not resized, and a horizontal flip with probability 1/2."""
    import albumentations as A

    return A.Compose([A.RandomCrop(size, size), A.HorizontalFlip(p=0.5)])


def transformed(pipeline: A.Compose, seed: int, **targets: np.ndarray) -> dict[str, Any]:
    """Run a pipeline as a pure function of `seed` and the targets; all of one call (`image`, `mask`, or
    `images` (T, H, W, 3) for the frames of a clip) share each draw.

    Not `set_random_seed`: it starts every transform of the pipeline with the same seed, so that, say, the
    flip would follow from where the crop lies. Here they draw from one stream, one after the other.
    """
    pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return pipeline(**targets)


def normalised(frames: np.ndarray) -> Tensor:
    """(..., H, W, 3) uint8 -> (3, ..., H, W) float32 with ImageNet's mean and standard deviation."""
    import torch

    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return ((torch.from_numpy(frames).float() / 255 - mean) / std).movedim(-1, 0)
