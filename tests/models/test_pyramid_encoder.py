"""Encoders as pyramids: which levels are skips, common widths, depth with one channel, levels of unlike strides."""

from typing import Any

import pytest
import torch
from torch import nn

from mmrobust.data.spec import Modality
from mmrobust.errors import UserError
from mmrobust.models.pyramid import Pyramid
from mmrobust.models.pyramid_encoder import build_pyramid, build_pyramids, skip_levels

IMAGE, DEPTH = Modality("image", (3, 64, 96)), Modality("depth", (1, 64, 96))


def keys(name: str = "tiny", width: int | None = None, **options: Any) -> dict[str, Any]:
    width = 16 if name == "tiny" else width
    return {
        "name": name,
        "pretrained": False,
        "weights": None,
        "norm": "batch",
        "width": width,
        "options": options,
    }


@pytest.mark.parametrize(
    ("strides", "kept"),
    [
        ([2, 4, 8, 16, 32], [3, 2, 1]),  # the stem is no skip
        ([4, 8, 16, 32], [2, 1, 0]),
        ([2, 4, 8], [1, 0]),
        ([16, 16, 16], []),  # a vision transformer has one resolution
        ([2, 4, 4, 8], [2, 0]),  # the last of those alike
    ],
    ids=str,
)
def test_which_levels_are_skips(strides: list[int], kept: list[int]) -> None:
    assert skip_levels(strides) == kept


@pytest.mark.parametrize("modality", [IMAGE, DEPTH], ids=["image", "depth"])
@pytest.mark.parametrize(
    ("name", "widths", "places"),
    [
        ("tiny", [16, 8, 4], [(8, 12), (16, 24), (32, 48)]),
        ("resnet18", [512, 256, 128, 64], [(2, 3), (4, 6), (8, 12), (16, 24)]),
        ("mobilenetv3_small_050", [288, 24, 16, 8], [(2, 3), (4, 6), (8, 12), (16, 24)]),
    ],
)
def test_pyramids(modality: Modality, name: str, widths: list[int], places: list[tuple[int, int]]) -> None:
    encoder = build_pyramid(modality, keys(name)).eval()
    pyramid = encoder(torch.randn(2, *modality.shape))
    assert isinstance(pyramid, Pyramid)
    found = [pyramid.deep, *pyramid.skips]
    assert [tuple(x.shape) for x in found] == [(2, w, *p) for w, p in zip(widths, places, strict=True)]
    assert [encoder.width, *encoder.skip_widths] == widths
    assert encoder.stride == 64 // places[-1][0]


def test_skips_have_the_largest_of_the_widths() -> None:
    encoders = build_pyramids(
        {"rgb": IMAGE, "depth": DEPTH}, {"rgb": keys("resnet50"), "depth": keys("resnet18")}
    )
    assert [e.skip_widths for e in encoders.values()] == [[1024, 512, 256]] * 2
    assert [e.width for e in encoders.values()] == [2048, 512]
    assert all(isinstance(p, nn.Identity) for p in encoders["rgb"].skip_projections)  # type: ignore[union-attr]
    pyramid = encoders["depth"](torch.randn(1, 1, 64, 96))
    assert [x.shape[1] for x in (pyramid.deep, *pyramid.skips)] == [512, 1024, 512, 256]


def test_width_projects_the_deepest_map_alone() -> None:
    pyramid = build_pyramid(IMAGE, keys("resnet18", width=24)).eval()(torch.randn(1, 3, 64, 96))
    assert [x.shape[1] for x in (pyramid.deep, *pyramid.skips)] == [24, 256, 128, 64]


def test_a_video_is_the_mean_over_its_frames() -> None:
    encoder = build_pyramid(Modality("video", (3, 2, 32, 32)), keys()).eval()
    video = torch.randn(2, 3, 2, 32, 32)
    frames = [encoder(video[:, :, t]) for t in range(2)]
    whole = encoder(video)
    torch.testing.assert_close(whole.deep, (frames[0].deep + frames[1].deep) / 2)
    torch.testing.assert_close(whole.skips[1], (frames[0].skips[1] + frames[1].skips[1]) / 2)


def test_levels_that_do_not_lie_on_each_other() -> None:
    with pytest.raises(UserError, match=r"different strides.*rgb 8, 4.*|.*depth"):
        build_pyramids({"rgb": IMAGE, "depth": DEPTH}, {"rgb": keys("resnet18"), "depth": keys("tiny")})
