"""Networks of timm whose stem is one small convolution."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmrobust.data.spec import Modality
from mmrobust.errors import UserError
from mmrobust.models.stages import Staged, build_levels


class SmallStem(Staged):
    """A ResNet of timm with a 3 × 3 convolution of stride 2 as its stem, instead of 7 × 7.

    `encoder.name=mmrobust.models.small_stem.SmallStem encoder.options.network=resnet18`

    Args:
        modality: kind and shape of the input.
        network: timm's name.
        options: passed on to timm.create_model.

    Raises:
        UserError: pretrained weights, which the new stem would not fit; a network whose stem is another.

    Source: the encoders of MMANet's and DMRNet's released code for CASIA-SURF.
    """

    def __init__(
        self, modality: Modality, *, pretrained: bool, norm: str, network: str, **options: Any
    ) -> None:
        if pretrained:
            raise UserError("SmallStem has no pretrained weights; set encoder.pretrained=false")
        keys: dict[str, Any] = {
            "pretrained": False,
            "weights": None,
            "norm": norm,
            "width": None,
            "options": options,
        }
        levels = build_levels(modality, name=network, **keys)
        stem = levels.stages[0] if isinstance(levels, Staged) else None
        first = next((m for m in stem.children() if isinstance(m, nn.Conv2d)), None) if stem else None
        if not isinstance(levels, Staged) or stem is None or first is None or first.kernel_size != (7, 7):
            raise UserError(
                f"SmallStem does not know the stem of {network!r}; take a ResNet such as resnet18 as encoder.options.network"
            )
        small = nn.Conv2d(first.in_channels, first.out_channels, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
        stem.register_module(next(key for key, m in stem.named_children() if m is first), small)
        super().__init__(list(levels.stages), levels.widths, levels.strides)
