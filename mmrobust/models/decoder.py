"""The segmentation decoder, from a pyramid of maps to class scores of pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrobust.models.encoders import normalization
from mmrobust.models.heads import Prediction
from mmrobust.models.pyramid import ConvNormReLU, Pyramid, resized


class Upsample(nn.Module):
    """Learned upsampling: nearest-neighbour interpolation, then a 3x3 filter for each channel.

    The filters start as the binomial kernel [1 2 1; 2 4 2; 1 2 1] / 16, so that the initial upsampling is smooth like
    bilinear interpolation. Source: ESANet (arXiv 2011.06961), with zero padding.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
        with torch.no_grad():
            self.filter.weight.copy_(torch.outer(binomial, binomial).expand_as(self.filter.weight))

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """(B, D, h, w) to (B, D, *size)."""
        return self.filter(F.interpolate(x, size=tuple(size), mode="nearest"))


class NonBottleneck1D(nn.Module):
    """A residual block of alternating 3x1 and 1x3 convolutions (ERFNet: Romera et al., IEEE T-ITS 2018)."""

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [
                nn.Conv2d(width, width, (3, 1), padding=(1, 0)),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, (1, 3), padding=(0, 1), bias=False),
                normalization(norm, width, 2),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.layers(x)).relu()


class Decoder(nn.Module):
    """Predicts class scores of every pixel. Each level convolves, upsamples and adds the next finer skip.

    In training, a classifier at every level also predicts at that resolution. After the finest level, learned filters
    upsample the class scores themselves. Without skips, a single map is convolved and upsampled.

    Args:
        width: channels of the deepest map.
        skips: channels of the other levels, coarse to fine.
        stride: pixels per place of the finest level.
        num_classes: C.
        size: (H, W) of the result.
        widths: channels of the decoder's levels, coarse to fine; the last is repeated if there are fewer than skips.
        blocks: number of `NonBottleneck1D` blocks in every level.
        norm: batch | group.

    Source: ESANet's decoder as MMANet and DMRNet use it, with widths 512, 256, 128 and 3 blocks. They project the
    skips before the decoder, so that two decoders share the projections; here each decoder has its own.
    """

    def __init__(
        self,
        width: int,
        skips: Sequence[int],
        *,
        stride: int,
        num_classes: int,
        size: Sequence[int],
        widths: Sequence[int],
        blocks: int,
        norm: str,
    ) -> None:
        super().__init__()
        self.size = tuple(size)
        count = max(len(skips), 1)
        widths = [*widths, *[widths[-1]] * count][:count]
        inputs = [width, *widths]
        self.levels = nn.ModuleList(
            nn.Sequential(ConvNormReLU(a, b, 3, norm), *(NonBottleneck1D(b, norm) for _ in range(blocks)))
            for a, b in zip(inputs, widths, strict=False)
        )
        self.side = nn.ModuleList(nn.Conv2d(w, num_classes, 1) for w in widths[: len(skips)])
        self.up = nn.ModuleList(Upsample(w) for w in widths[: len(skips)])
        self.skips = nn.ModuleList(ConvNormReLU(a, b, 1, norm) for a, b in zip(skips, widths, strict=False))
        self.classifier = nn.Conv2d(widths[-1], num_classes, 3, padding=1)
        self.enlarge = nn.ModuleList(Upsample(num_classes) for _ in range(round(math.log2(stride))))

    def forward(self, features: Pyramid | Tensor) -> Prediction:
        """Predict logits (B, C, *size) from a pyramid or a map; in training also at the coarser resolutions."""
        x, skips = features if isinstance(features, Pyramid) else (features, ())
        side = []
        for i, level in enumerate(self.levels):
            x = level(x)
            if skips:
                side += [self.side[i](x)] if self.training else []
                x = self.up[i](x, skips[i].shape[-2:]) + self.skips[i](skips[i])
        x = self.classifier(x)
        # On CPUs, channels_last cuts the time of per-channel filters to an eighth, that of argmax to a third.
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        for enlarge in self.enlarge:
            x = enlarge(x, [2 * n for n in x.shape[-2:]])
        return Prediction(resized(x, self.size), tuple(side))
