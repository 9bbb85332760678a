"""Fusion of the features of any number of modalities, some of which may be absent.

Each module takes `features: dict[modality -> (B, D_m, ...)]` and `available: (B, M)` bool and returns
(B, width, ...). An absent modality's features affect neither the result nor any gradient.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmrobust.errors import UserError
from mmrobust.models.encoders import PointwiseLinear


def masked(features: Mapping[str, Tensor], available: Tensor) -> list[Tensor]:
    """Set the features of absent modalities to exact zeros, which also stops their gradient."""
    zero = next(iter(features.values())).new_zeros(())
    return [torch.where(rows_like(available[:, i], x), x, zero) for i, x in enumerate(features.values())]


def rows_like(rows: Tensor, like: Tensor) -> Tensor:
    """Reshape `rows` (B,) so that it broadcasts over `like` (B, ...)."""
    return rows.reshape(-1, *[1] * (like.dim() - 1))


def mean_over(features: Mapping[str, Tensor], available: Tensor) -> Tensor:
    """Mean of equally shaped features over the available modalities; zeros in rows without any."""
    total = torch.stack(masked(features, available)).sum(0)
    return total / rows_like(available.sum(1).clamp(min=1), total)


def check_places(features: Mapping[str, Tensor]) -> None:
    shapes = {m: tuple(x.shape[2:]) for m, x in features.items()}
    if len(set(shapes.values())) > 1:
        raise UserError(f"maps of different sizes cannot be fused place by place: {shapes}")


class Concat(nn.Module):
    """Concatenation. An absent modality's block is zero (as in MMANet and DMRNet); width = sum of the widths."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.width = sum(widths.values())

    def forward(self, features: Mapping[str, Tensor], available: Tensor) -> Tensor:
        check_places(features)
        return torch.cat(masked(features, available), dim=1)


class Sum(nn.Module):
    """Sum of linear projections of the available modalities, each with its own bias (OGM-GE's sum fusion)."""

    def __init__(self, widths: Mapping[str, int], *, width: int) -> None:
        super().__init__()
        self.width = width
        self.projections = nn.ModuleList([PointwiseLinear(w, width) for w in widths.values()])

    def forward(self, features: Mapping[str, Tensor], available: Tensor) -> Tensor:
        check_places(features)
        projected = [f(x) for f, x in zip(self.projections, features.values(), strict=True)]
        return torch.stack(masked(dict(zip(features, projected, strict=True)), available)).sum(0)


class Gated(nn.Module):
    """Gated multimodal unit (Arevalo et al., ICLR-W 2017, arXiv 1702.01992, eq. 1-4) with softmax gates.

    h = sum_m z_m * tanh(W_m x_m), where z is the softmax of V_m x_m over the available modalities, channel by
    channel. The published gate, for two modalities, is a sigmoid of both inputs. Here each gate depends on its own
    modality only, so that it is defined for any M and under absence.
    """

    def __init__(self, widths: Mapping[str, int], *, width: int) -> None:
        super().__init__()
        self.width = width
        self.values = nn.ModuleList([PointwiseLinear(w, width) for w in widths.values()])
        self.gates = nn.ModuleList([PointwiseLinear(w, width) for w in widths.values()])

    def forward(self, features: Mapping[str, Tensor], available: Tensor) -> Tensor:
        check_places(features)
        present = dict(zip(features, masked(features, available), strict=True))
        values = torch.stack([f(x).tanh() for f, x in zip(self.values, present.values(), strict=True)])
        gates = torch.stack([g(x) for g, x in zip(self.gates, present.values(), strict=True)])
        absent = torch.stack([~rows_like(available[:, i], values[0]) for i in range(len(present))])
        weights = gates.masked_fill(absent, torch.finfo(gates.dtype).min).softmax(0)
        return (weights.masked_fill(absent, 0) * values).sum(0)


class FiLM(nn.Module):
    """Feature-wise linear modulation (Perez et al., AAAI 2018, arXiv 1709.07871), symmetric in the modalities.

    The projection h_m of every modality is modulated by the mean c_m of the other available ones:
    (1 + G_m c_m) * h_m + B_m c_m. The result is the mean over the available modalities. A single available modality
    is not modulated. The published FiLM has one conditioned and one conditioning input; this form is defined for any
    M and any combination.
    """

    def __init__(self, widths: Mapping[str, int], *, width: int) -> None:
        super().__init__()
        self.width = width
        self.projections = nn.ModuleList([PointwiseLinear(w, width) for w in widths.values()])
        self.scales = nn.ModuleList([PointwiseLinear(width, width, bias=False) for _ in widths])
        self.shifts = nn.ModuleList([PointwiseLinear(width, width, bias=False) for _ in widths])

    def forward(self, features: Mapping[str, Tensor], available: Tensor) -> Tensor:
        check_places(features)
        projected = [f(x) for f, x in zip(self.projections, features.values(), strict=True)]
        present = masked(dict(zip(features, projected, strict=True)), available)
        total = torch.stack(present).sum(0)
        count = rows_like(available.sum(1), total).to(total.dtype)
        modulated = {}
        for name, h, scale, shift in zip(features, present, self.scales, self.shifts, strict=True):
            context = (total - h) / (count - 1).clamp(min=1)
            modulated[name] = (1 + scale(context)) * h + shift(context)
        return torch.stack(masked(modulated, available)).sum(0) / count.clamp(min=1)
