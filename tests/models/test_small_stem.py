"""ResNets with a small stem."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.errors import UserError
from mmrobust.methods.base import Method
from mmrobust.models.small_stem import SmallStem
from mmrobust.models.trunks import Trunk

IMAGE = Modality("image", (3, 112, 112))


def make(**options: Any) -> SmallStem:
    return SmallStem(IMAGE, **({"pretrained": False, "norm": "batch", "network": "resnet18"} | options))


def test_only_the_stem_is_another() -> None:
    encoder = make(zero_init_last=False).eval()
    stem = encoder.stages[0][0]  # type: ignore[index]
    assert isinstance(stem, nn.Conv2d)
    assert (stem.kernel_size, stem.stride, stem.padding, stem.bias) == ((3, 3), (2, 2), (1, 1), None)
    assert (encoder.widths, encoder.strides) == ([64, 64, 128, 256, 512], [2, 4, 8, 16, 32])
    with torch.no_grad():
        assert encoder(torch.randn(1, 3, 112, 112)).shape == (1, 512, 4, 4)
    assert all((m.weight == 1).all() for m in encoder.modules() if isinstance(m, nn.BatchNorm2d))


def test_the_recipe_of_faces_takes_it_apart() -> None:
    """Its trunk is the last two stages, on 14 x 14 places."""
    config = compose_config(["experiment=dmrnet_casia_surf"]).method
    modalities = dict.fromkeys(("rgb", "depth", "ir"), IMAGE)
    method: Method = construct(config, spec=DataSpec("classification", 2, 4, modalities))
    assert isinstance(method.fusion, Trunk)
    maps = method.eval().encoders["rgb"](torch.randn(1, 3, 112, 112))
    assert maps.shape == (1, 128, 14, 14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrained": True}, "no pretrained weights"),
        ({"network": "convnext_atto"}, "does not know the stem of 'convnext_atto'"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**options)
