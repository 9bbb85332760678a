import colorsys

import numpy as np
import pytest

from mmrobust.data.families import frame_augmentation

SIZE = (24, 32)


@pytest.fixture
def frame() -> dict[str, np.ndarray]:
    """(60, 90), whose parts tell where a pixel came from: the row and the column."""
    row, column = np.mgrid[:60, :90]
    rgb = np.stack([4 * row, 2 * column, 0 * row], -1).astype(np.uint8)
    return {"rgb": rgb, "depth": (row + column / 100).astype(np.float32), "label": (row + 1).astype(np.uint8)}


def test_geometry_is_shared(frame):
    augment = frame_augmentation.segmentation(SIZE, (1.0, 1.4), rescale_depth=False, fitted=False)
    augment.colour = False
    flipped, heights = [], []
    for epoch in range(40):
        found = augment(frame, 0, epoch)
        assert {part: x.shape[:2] for part, x in found.items()} == dict.fromkeys(found, SIZE)
        assert [x.dtype for x in found.values()] == [np.uint8, np.float32, np.uint8]
        row = np.floor(found["depth"])
        assert np.array_equal(row + 1, found["label"])  # both nearest: the same pixels
        column = np.round((found["depth"] - row) * 100)
        assert np.abs(found["rgb"][..., 0] / 4 - row).max() <= 1.3  # bilinear: within a pixel
        assert np.abs(found["rgb"][..., 1] / 2 - column).max() <= 1.3
        flipped.append(column[0, 0] > column[0, -1])
        heights.append(row[-1, 0] - row[0, 0])
        assert abs(column[0, 0] - column[0, -1]) == pytest.approx(32 / 24 * heights[-1], abs=3)
    assert 8 < sum(flipped) < 32
    assert min(heights) < 18 < 21 < max(heights)  # from 24 rows / 1.4 to 24


def test_a_function_of_frame_and_salts(frame):
    one, other = (frame_augmentation.segmentation(SIZE, (1.0, 1.4), False, fitted=False) for _ in range(2))
    first = one(frame, 0, "geometry", 3)
    one(frame, 0, "geometry", 4)
    for part, x in one(frame, 0, "geometry", 3).items():
        assert np.array_equal(x, first[part])
        assert np.array_equal(other(frame, 0, "geometry", 3)[part], first[part])
    assert not np.array_equal(one(frame, 1, "geometry", 3)["label"], first["label"])


def test_what_is_not_larger_is_resized(frame):
    """In both directions, as ESANet does: nothing is cut off."""
    found = frame_augmentation.segmentation((24, 200), (1.0, 1.0), False, fitted=False)(frame, 0)
    assert found["rgb"].shape == (24, 200, 3)
    assert found["label"].min() <= 3
    assert found["label"].max() >= 58
    exact = frame_augmentation.segmentation((60, 80), (1.0, 1.0), False, fitted=False)(frame, 0)["depth"]
    assert np.round((exact - np.floor(exact)) * 100).max() >= 88  # of 90 columns


def test_depth_values_stay_or_are_divided(frame):
    flat = frame | {"depth": np.full((60, 90), 2000, np.float32)}
    for scale in (0.5, 1.5):
        kept = frame_augmentation.segmentation(SIZE, (scale, scale), False, fitted=False)(flat, 0)["depth"]
        divided = frame_augmentation.segmentation(SIZE, (scale, scale), True, fitted=False)(flat, 0)["depth"]
        assert (kept == 2000).all()
        assert np.allclose(divided, 2000 / scale)
        assert divided.dtype == np.float32


def test_absent_parts_stay_absent(frame):
    for augment in (
        frame_augmentation.segmentation(SIZE, (1.0, 1.4), False, fitted=False),
        frame_augmentation.scene(SIZE),
    ):
        whole = augment(frame, 0)
        for part in ("rgb", "depth", "label"):
            found = augment(frame | {part: None}, 0)
            assert found[part] is None
            for other in set(frame) - {part}:
                assert np.array_equal(found[other], whole[other])


def test_colour_jitter_is_that_of_the_recipe():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for hue, saturation, value in ((1.1, 0.9, 25.0), (0.9, 1.1, -25.0), (1.0, 1.0, 0.0)):
        found = frame_augmentation.jittered(rgb, hue, saturation, value)
        for pixel, changed in zip(rgb.reshape(-1, 3), found.reshape(-1, 3), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
            expected = colorsys.hsv_to_rgb(
                min(h * hue, 1), min(s * saturation, 1), np.clip(v + value / 255, 0, 1)
            )
            assert np.abs(np.array(expected) * 255 - changed).max() <= 0.51
    assert np.array_equal(found, rgb)


def test_colour_is_for_rgb_alone(frame):
    augment = frame_augmentation.segmentation(SIZE, (1.0, 1.4), False, fitted=False)
    coloured = augment(frame, 0)
    augment.colour = False
    plain = augment(frame, 0)
    assert not np.array_equal(coloured["rgb"], plain["rgb"])
    assert np.array_equal(coloured["depth"], plain["depth"])
    assert np.array_equal(coloured["label"], plain["label"])


def test_scenes(frame):
    augment = frame_augmentation.scene((28, 28))
    seen = [augment(frame | {"label": None}, 0, epoch)["depth"] for epoch in range(20)]
    assert {x.shape for x in seen} == {(28, 28)}
    rows = [np.floor(x[-1, 0]) - np.floor(x[0, 0]) for x in seen]
    assert np.mean(rows) == pytest.approx(60 * 28 / 32, abs=2)  # 224 of 256
    assert len({x.tobytes() for x in seen}) > 10


@pytest.mark.parametrize("shape", [(60, 90), (30, 300), (25, 32), (24, 33)])
def test_a_large_frame_is_brought_to_the_scale_at_which_it_is_tested(shape):
    row, column = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    frame = {
        "rgb": np.stack([row, column, 0 * row], -1).astype(np.uint8),
        "depth": 1000 * row + column,
        "label": row.astype(np.uint8),
    }
    tested = frame_augmentation.moved(frame_augmentation.resized(SIZE), 0, frame)
    augment = frame_augmentation.segmentation(SIZE, (1.0, 1.0), False, fitted=True)
    augment.colour = False
    flips = set()
    for epoch in range(8):
        found = augment(frame, epoch)
        flipped = not np.array_equal(found["depth"], tested["depth"])
        flips.add(flipped)
        for part, x in found.items():
            assert np.array_equal(x[:, ::-1] if flipped else x, tested[part])
    assert flips == {True, False}
    depth = np.full(shape, 2000, np.float32)  # not nearer than in testing
    nearer = frame_augmentation.segmentation(SIZE, (1.25, 1.25), True, fitted=True)(
        frame | {"depth": depth}, 0
    )
    assert np.allclose(nearer["depth"], 1600)


def test_a_small_frame_is_not_enlarged_before():
    frame = {"rgb": None, "depth": np.arange(20 * 30, dtype=np.float32).reshape(20, 30), "label": None}
    pair = (
        frame_augmentation.segmentation(SIZE, (1.0, 1.4), False, fitted=fitted) for fitted in (True, False)
    )
    one, other = (augment(frame, 3)["depth"] for augment in pair)
    assert np.array_equal(one, other)
