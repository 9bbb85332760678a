"""The control arms' methods: each is a published one without the part that a claim rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from mmrobust.methods.base import Features, Output
from mmrobust.methods.dmrnet import DMRNet
from mmrobust.methods.osmd import OSMD
from mmrobust.methods.udml import UDML


class UnitVariance(nn.Module):
    """The logarithm of a variance of 1 everywhere, whatever the feature."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class FixedNoise(DMRNet):
    """DMRNet whose Gaussians all have variance 1: noise on the features, and nothing that predicts it."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.log_variance = UnitVariance()


class IndependentTransfer(OSMD):
    """OSMD whose fusion takes restored features as they are: its loss trains nothing that restores."""

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        fixed = {
            m: f | {"restored": apply_to_collection(f["restored"], Tensor, Tensor.detach)}
            for m, f in features.items()
        }
        output = super().fuse(fixed, available)
        # The adaptation still trains what restores.
        restored = self.joint_adaptation.restore(features, available & self.is_source)
        return replace(output, extras=output.extras | {"restored": restored})


class CleanEncoders(UDML):
    """UDML whose encoders rest once the inputs become noisy, so that noise harms what they say."""

    def resting(self) -> list[nn.Module]:
        return [self.encoders, self.mean] if self.current_epoch >= self.epochs // 2 else []
