"""The kit finds the mistakes of encoders that it is there for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmrobust.data.spec import KINDS, Modality
from mmrobust.errors import UserError
from mmrobust.testing import check_encoder

VECTOR = Modality("vector", KINDS["vector"].example)


class Linear(nn.Module):
    def __init__(self, modality: Modality, **keys: Any) -> None:
        super().__init__()
        if modality.kind != "vector":
            raise UserError(f"Linear reads vectors, not {modality.kind}s")
        self.width = 8
        self.layer = nn.Linear(modality.shape[0], 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class SaysAnotherWidth(Linear):
    def __init__(self, modality: Modality) -> None:
        super().__init__(modality)
        self.width = 9


class HasAnUnusedParameter(Linear):
    def __init__(self, modality: Modality) -> None:
        super().__init__(modality)
        self.unused = nn.Linear(2, 2)


class DrawsAtInference(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.rand(())


class MixesRows(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x - x.mean(0))


class Divides(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) / 0


def test_a_sound_encoder_passes() -> None:
    check_encoder(Linear, VECTOR)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (SaysAnotherWidth, r"shape \(8, 8\), not \(8, 9\)"),
        (HasAnUnusedParameter, "unused.weight got no gradient"),
        (DrawsAtInference, "something is drawn at inference"),
        (MixesRows, "depend on its batch"),
        (Divides, "not finite"),
    ],
)
def test_finds(encoder: type[nn.Module], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_encoder(encoder, VECTOR)
