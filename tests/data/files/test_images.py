import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmrobust.data.files import images
from mmrobust.errors import UserError


@pytest.fixture
def ramp() -> np.ndarray:
    """(72, 96, 3): red grows to the right, green downwards."""
    image = np.zeros((72, 96, 3), np.uint8)
    image[..., 0], image[..., 1] = np.linspace(0, 255, 96), np.linspace(0, 255, 72)[:, None]
    return image


def write(path, rgb) -> None:
    cv2.imwrite(str(path), rgb[..., ::-1])


def test_read_is_rgb(tmp_path, ramp):
    write(tmp_path / "a.png", ramp)
    assert np.array_equal(images.read_image(tmp_path / "a.png"), ramp)
    write(tmp_path / "a.jpg", ramp)
    assert np.abs(images.read_image(tmp_path / "a.jpg").astype(int) - ramp).max() < 32
    cv2.imwrite(str(tmp_path / "grey.png"), ramp[..., 0])
    assert np.array_equal(images.read_image(tmp_path / "grey.png"), ramp[..., :1].repeat(3, 2))


def test_what_cannot_be_read_is_named(tmp_path, ramp):
    write(tmp_path / "whole.jpg", ramp)
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "almost.jpg").write_bytes(whole[:-2])
    (tmp_path / "start.jpg").write_bytes(whole[:100])
    (tmp_path / "nothing.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not an image")
    for name, complaint in {
        "half": "cut short",
        "almost": "cut short",
        "start": "cut short",
        "nothing": "cannot be read as an image",
        "text": "cannot be read as an image",
        "absent": "No such file",
    }.items():
        with pytest.raises(UserError, match=complaint) as caught:
            images.read_image(tmp_path / f"{name}.jpg")
        assert f"{name}.jpg" in str(caught.value)


def test_bytes_after_the_end_mark_are_no_harm(tmp_path, ramp):
    write(tmp_path / "a.jpg", ramp)
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(b"trailer")
    assert images.read_image(tmp_path / "a.jpg").shape == ramp.shape


def test_frames_of_different_size_are_named(tmp_path, ramp):
    write(tmp_path / "a.jpg", ramp)
    write(tmp_path / "b.jpg", ramp[:-8])
    assert images.read_frames([tmp_path / "a.jpg"] * 2).shape == (2, 72, 96, 3)
    with pytest.raises(UserError, match=r"differ in size.*a\.jpg.*b\.jpg"):
        images.read_frames([tmp_path / "a.jpg", tmp_path / "b.jpg"])


def test_choose_frames():
    files = list(range(5))
    assert images.choose_frames(files, 1, None) == [2]
    assert images.choose_frames(files, 5, None) == files
    assert (
        images.choose_frames(files[:2], 4, None) == images.choose_frames(files[:2], 4, (0,)) == [0, 0, 1, 1]
    )
    drawn = [images.choose_frames(files, 3, (0, epoch)) for epoch in range(50)]
    assert all(len(set(d)) == 3 and d == sorted(d) for d in drawn)
    assert {f for d in drawn for f in d} == set(files)


def test_transform_is_a_function_of_the_seed(ramp):
    one, other = images.crop_and_flip(32), images.crop_and_flip(32)
    first = images.transformed(one, 1, image=ramp)["image"]
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    assert not np.array_equal(images.transformed(one, 2, image=ramp)["image"], first)
    assert np.array_equal(images.transformed(one, 1, image=ramp)["image"], first)
    assert np.array_equal(images.transformed(other, 1, image=ramp)["image"], first)


def test_one_draw_for_all_frames(ramp):
    clip = images.transformed(images.crop_and_flip(32), 3, images=np.stack([ramp] * 3))["images"]
    assert clip.shape == (3, 32, 32, 3)
    assert np.array_equal(clip[0], clip[1])
    assert np.array_equal(clip[0], images.transformed(images.crop_and_flip(32), 3, image=ramp)["image"])


def test_flip_and_crop_are_independent(ramp):
    """With one seed for every transform (albumentations' set_random_seed) they would not be."""
    pipeline = images.crop_and_flip(16)
    crops = np.stack([images.transformed(pipeline, seed, image=ramp)["image"] for seed in range(800)])
    red, green = crops[..., 0].astype(float), crops[..., 1].astype(float)
    flipped = red[:, :, 0].mean(1) > red[:, :, -1].mean(1)
    assert 0.45 < flipped.mean() < 0.55
    height = green[:, -1].mean(1) - green[:, 0].mean(1)
    x, y = red.mean((1, 2)), green.mean((1, 2))
    for geometry in (x, y, height):
        assert abs(np.corrcoef(flipped, geometry)[0, 1]) < 0.12  # 3.4 standard errors


def test_test_transform_is_the_whole_image(ramp):
    small = images.transformed(images.resize(24), 0, image=ramp)["image"].astype(int)
    means = ramp.reshape(24, 3, 24, 4, 3).mean((1, 3))  # area: no aliasing
    assert np.abs(small - means).max() <= 1


def test_normalised(ramp):
    x = images.normalised(np.stack([ramp, ramp]))
    assert x.shape == (3, 2, 72, 96)
    assert x.dtype == torch.float32
    assert torch.allclose(x[1, 0, -1, 0], torch.tensor((1 - 0.456) / 0.224))
    assert torch.allclose(x[2], torch.tensor(-0.406 / 0.225))


def test_rotated_shows_the_middle_of_the_bounding_box(ramp):
    square = np.ascontiguousarray(ramp[:, :72])
    assert np.array_equal(images.rotated(square, 0, 1.0), square)
    assert np.array_equal(images.rotated(ramp, 0, 0.5), ramp[18:-18, 24:-24])
    assert np.array_equal(images.rotated(square, 90, 1.0), np.rot90(square))
    whole = images.rotated(square, 30, 1.0)
    side = int(72 * (np.cos(np.pi / 6) + 0.5))
    assert whole.shape == (side, side, 3)
    assert (whole[:20, :10] == 0).all()  # a corner outside of the image
    assert images.rotated(square, -30, 0.8).shape == (int(side * 0.8), int(side * 0.8), 3)


def test_random_crop_keeps_the_scale(ramp):
    crops = [
        images.transformed(images.random_crop_and_flip(40), seed, image=ramp)["image"] for seed in range(9)
    ]
    assert {crop.shape for crop in crops} == {(40, 40, 3)}
    steps = [abs(int(crop[0, -1, 0]) - int(crop[0, 0, 0])) for crop in crops]
    assert all(abs(step - 39 * 255 / 95) <= 2 for step in steps)
    assert len({crop.tobytes() for crop in crops}) > 6


def claims(side: int) -> bytes:
    """A grey PNG whose head says side × side, with hardly any pixels behind it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("read", [images.read_image, images.read_map, images.read_indices, images.header])
def test_more_pixels_than_can_be_are_named(tmp_path, read):
    (tmp_path / "bomb.png").write_bytes(claims(40000))
    with pytest.raises(UserError, match=r"bomb\.png cannot be read as an image"):
        read(tmp_path / "bomb.png")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("ending", ["tif", "jpg", "png"])
def test_the_head_says_the_size_that_is_read(tmp_path, ramp, orientation, ending):
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    path = tmp_path / f"a.{ending}"
    if ending == "tif":
        Image.fromarray(ramp).save(path, tiffinfo={images.ORIENTATION: orientation})
    else:
        Image.fromarray(ramp).save(path, exif=exif)
    assert images.header(path)[0] == images.read_image(path).shape
    if ending != "jpg" and orientation != 1:
        with pytest.raises(UserError, match="orientation tag"):
            images.read_indices(path)


def test_grey_with_alpha_and_grey_as_colour_are_numbers_and_floats_are_told(tmp_path, ramp):
    grey = ramp[..., 0]
    Image.fromarray(np.stack([grey, grey * 0 + 255], -1), "LA").save(tmp_path / "la.png")
    assert np.array_equal(images.read_indices(tmp_path / "la.png"), grey)
    cv2.imwrite(str(tmp_path / "three.png"), np.stack([grey] * 3, -1).astype(np.uint16) * 100)
    assert np.array_equal(images.read_map(tmp_path / "three.png"), grey.astype(np.uint16) * 100)
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(UserError, match="holds float32 numbers, but classes are whole"):
        images.read_indices(tmp_path / "float.tif")
