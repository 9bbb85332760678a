"""Stretches of zeros are told, and plain pictures are not."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmrobust.data.files.images import read_image
from mmrobust.data.files.jpeg import zeroed
from mmrobust.errors import UserError


def photo(size: int = 256) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (size // 4, size // 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size))


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def with_hole(data: bytes) -> bytes:
    half, quarter = len(data) // 2, len(data) // 4
    return data[:half] + bytes(quarter) + data[half + quarter :]


@pytest.mark.parametrize(
    "options", [{}, {"quality": 95}, {"optimize": True}, {"quality": 40, "subsampling": 0}]
)
def test_a_hole_is_told(options: dict[str, Any]) -> None:
    data = encoded(photo(), **options)
    assert not zeroed(data)
    assert zeroed(with_hole(data))


def test_a_hole_in_grey(tmp_path: Path) -> None:
    data = encoded(photo().convert("L"))
    assert not zeroed(data)
    assert zeroed(with_hole(data))
    (tmp_path / "a.jpg").write_bytes(with_hole(data))
    with pytest.raises(UserError, match="a stretch of zeros within its pixels"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}])
@pytest.mark.parametrize("colour", [0, 127, 255])
def test_plain_pictures_are_whole(colour: int, options: dict[str, Any]) -> None:
    assert not zeroed(encoded(Image.new("RGB", (2000, 2000), (colour,) * 3), **options))
    half = photo()
    half.paste((colour,) * 3, (0, 64, 256, 256))
    assert not zeroed(encoded(half, **options))


def test_a_thumbnail_and_what_is_behind_the_end() -> None:
    exif = Image.Exif()
    exif[270] = "\0" * 500
    assert not zeroed(encoded(photo(), exif=exif) + bytes(500))
