"""Modalities rebuilt from one another."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmrobust.errors import UserError
from mmrobust.models.encoders import PointwiseLinear
from mmrobust.models.fusion import check_places, masked


class LatentCorrelation(nn.Module):
    """Every modality rebuilt as an affine combination of the others; the rebuilt ones side by side.

    r_m = sum_{k != m} a_mk x_k + b_m, where the M scalars (a_mk, b_m) of a sample come from an MLP on
    the pooled x_m. An absent x is 0: it adds nothing to the others, and is itself rebuilt with the coefficients
    that its MLP learned for a zero vector, the same for all samples.

    Args:
        widths: of the modalities' features.
        width: of the projections, since only features of one width can be added up; the result is
            M times as wide.
        hidden: of the MLPs, whose activation is a leaky ReLU.

    Raises:
        UserError: there is one modality only.
    """

    def __init__(self, widths: Mapping[str, int], *, width: int, hidden: int) -> None:
        super().__init__()
        count = len(widths)
        if count < 2:
            raise UserError(
                f"the dataset has the modality {', '.join(widths)} alone, but latent correlation rebuilds each from "
                "the others; use a dataset of at least two modalities or another method"
            )
        self.width = count * width
        self.projections = nn.ModuleList([PointwiseLinear(w, width) for w in widths.values()])
        self.coefficients = nn.ModuleList(
            [
                nn.Sequential(nn.Linear(width, hidden), nn.LeakyReLU(), nn.Linear(hidden, count))
                for _ in widths
            ]
        )

    def forward(self, features: Mapping[str, Tensor], available: Tensor) -> Tensor:
        """Features (B, D_m, ...) of the modalities `available` (B, M) to (B, M * width, ...)."""
        check_places(features)
        projected = {m: f(x) for f, (m, x) in zip(self.projections, features.items(), strict=True)}
        present = masked(projected, available)
        rebuilt = []
        for m, (x, mlp) in enumerate(zip(present, self.coefficients, strict=True)):
            pooled = x.flatten(2).mean(2) if x.dim() > 2 else x
            scalars = mlp(pooled).reshape(*available.shape, *[1] * (x.dim() - 1))  # (B, M, 1, ...)
            others = [*present[:m], *present[m + 1 :], torch.ones_like(x)]
            rebuilt.append((scalars * torch.stack(others, 1)).sum(1))
        return torch.cat(rebuilt, 1)
