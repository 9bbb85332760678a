"""Encoders as stages: they are the network, whatever its family, and what has none."""

from typing import Any

import pytest
import timm
import torch

from mmrobust.data.spec import Modality
from mmrobust.errors import UserError
from mmrobust.models.stages import Staged, Whole, build_levels

IMAGE = Modality("image", (3, 64, 96))


def keys(name: str = "tiny", **options: Any) -> dict[str, Any]:
    width = 16 if name == "tiny" else None
    return {
        "name": name,
        "pretrained": False,
        "weights": None,
        "norm": "batch",
        "width": width,
        "options": options,
    }


def stages_of(name: str, size: tuple[int, int] = (64, 96)) -> Staged:
    torch.manual_seed(0)
    staged = build_levels(Modality("image", (3, *size)), **keys(name)).eval()
    assert isinstance(staged, Staged)
    return staged


def test_stages_are_the_network() -> None:
    staged = stages_of("resnet18")
    assert len(staged.stages) == 5
    whole = timm.create_model("resnet18", pretrained=False, num_classes=0, global_pool="").eval()
    for ours, theirs in zip(staged.parameters(), whole.parameters(), strict=True):
        theirs.data.copy_(ours.data)
    x = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(staged(x), whole(x))


@pytest.mark.parametrize(
    ("name", "size", "first"),
    [
        ("tf_efficientnet_lite0", (64, 96), 2),  # a stem and blocks, some of which share a level
        ("mobilenetv3_small_050", (64, 96), 2),
        ("convnext_atto", (64, 96), 4),
        ("swin_tiny_patch4_window7_224", (224, 224), 4),  # channels last
    ],
)
def test_levels_are_those_of_the_network(name: str, size: tuple[int, int], first: int) -> None:
    staged, network = stages_of(name, size), timm.create_model(name, features_only=True).eval()
    for ours, theirs in zip(staged.parameters(), network.parameters(), strict=True):
        theirs.data.copy_(ours.data)
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        found, expected = staged.levels(x), network(x)
    for level, theirs, width, stride in zip(found, expected, staged.widths, staged.strides, strict=True):
        assert level.shape[1:] == (width, size[0] // stride, size[1] // stride)
        torch.testing.assert_close(level, theirs if theirs.shape == level.shape else theirs.movedim(-1, 1))
    assert staged.strides[0] == first


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"img_size": (64, 96)}),
        ("hrnet_w18_small", {}),
        ("tf_efficientnet_lite0", {"feature_location": "expansion"}),
    ],
    ids=["one resolution", "branches side by side", "levels from within blocks"],
)
def test_networks_that_are_no_sequence_are_left_whole(name: str, options: dict[str, Any]) -> None:
    whole = build_levels(IMAGE, **keys(name, **options)).eval()
    assert isinstance(whole, Whole)
    with torch.no_grad():
        found = [level.shape[1] for level in whole.levels(torch.randn(1, *IMAGE.shape))]
    assert found == whole.widths


@pytest.mark.parametrize(
    ("modality", "chosen", "message"),
    [
        (Modality("vector", (8,)), keys(), "levels are maps, which vectors do not have"),
        (IMAGE, keys("resnet19"), "did you mean"),
        (IMAGE, keys("tiny") | {"width": None}, "needs encoder.width"),
        (IMAGE, keys("resnet18", no_such=1), "timm cannot take the levels out of 'resnet18'"),
        (IMAGE, keys("mobilenetv3_small_050", feature_location="expansion"), "cannot take the levels out"),
    ],
    ids=["vector", "unknown", "no width", "option", "levels from within blocks"],
)
def test_mistakes(modality: Modality, chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_levels(modality, **chosen)
