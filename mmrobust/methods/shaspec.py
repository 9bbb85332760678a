"""ShaSpec: shared and modality-specific features."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrobust.batch import Batch
from mmrobust.methods.base import Features, Method, Output
from mmrobust.models.assembly import skips_of
from mmrobust.models.encoders import PointwiseLinear
from mmrobust.models.fusion import check_places, masked, rows_like
from mmrobust.models.pyramid import Pyramid, deepest, levels


@dataclass(frozen=True)
class AsReleased:
    """Deviations of the released baseline from the paper, one switch each; all off follows the paper.

    Args:
        sequential_fill: absent shared features are filled one modality after another, each with the mean over
            all M - 1 others: absent earlier ones are filled already, absent later ones count as zeros. (For the
            third of three the release takes the first sample's own feature for one of them; that is left out.)
        neighbouring_pairs: the alignment adds up the errors of each modality and the next one in the dataset's
            order (CASIA-SURF), instead of averaging those of all pairs.
    """

    sequential_fill: bool
    neighbouring_pairs: bool


def fill_with_mean(shared: Mapping[str, Tensor], available: Tensor) -> list[Tensor]:
    """Replace the shared features (B, D, ...) of absent modalities by the mean over the sample's available ones."""
    present = masked(shared, available)
    total = torch.stack(present).sum(0)
    mean = total / rows_like(available.sum(1).clamp(min=1), total)
    return [torch.where(rows_like(available[:, i], h), h, mean) for i, h in enumerate(present)]


def fill_in_turn(shared: Mapping[str, Tensor], available: Tensor) -> list[Tensor]:
    """Fill as the released code does, see `AsReleased.sequential_fill`."""
    filled = masked(shared, available)
    for i, h in enumerate(filled):
        others = (torch.stack(filled).sum(0) - h) / max(len(filled) - 1, 1)
        filled[i] = torch.where(rows_like(available[:, i], h), h, others)
    return filled


class ShaSpec(Method):
    """Shared-specific feature modelling (Wang et al., CVPR 2023, arXiv 2307.14126) in the form that MMANet and DMRNet
    compare with.

    Every modality m has a specific feature s_m, from its own encoder, and a shared feature h_m, from an encoder for
    all modalities. An absent s_m is 0; an absent h_m is the mean of the available ones. The head receives the
    concatenation of F([s_m; h_m]) + s_m over all modalities, F linear. One loss aligns the shared features of a sample;
    a linear classifier learns the modality from specific features. Both use all available features, dropped or not.

    Readings. One encoder cannot read inputs of different kinds or shapes: modalities of the same kind and shape share
    one, as published; each other modality has a second encoder; a two-layer pointwise network after it is common to
    all. Shared encoders start as copies of the specific ones. F is one map for all modalities. The alignment compares
    the inputs of the fusion, maps or pooled features. In pyramids, all of this concerns the deepest maps; gated sums
    fuse s_m + h_m at finer levels.

    Args:
        width: channels of specific and shared features.
        alignment_weight: weight of the distance of shared features (lambda_dao), averaged over elements, available
            pairs and samples.
        modality_weight: weight of the modality classifier's cross-entropy (lambda_dco), averaged over features.
        as_released: see `AsReleased`.
    """

    def __init__(
        self,
        *,
        width: int,
        alignment_weight: float,
        modality_weight: float,
        as_released: Mapping[str, bool],
        **base: Any,
    ) -> None:
        super().__init__(fusion=None, **base)
        self.alignment_weight, self.modality_weight = alignment_weight, modality_weight
        self.as_released = AsReleased(**as_released)
        kinds = self.spec.modalities
        self.group = {m: next(first for first in kinds if kinds[first] == kinds[m]) for m in kinds}
        first = dict.fromkeys(self.group.values())
        self.shared_encoders = nn.ModuleDict({m: deepcopy(self.encoders[m]) for m in first})
        self.shared_projections = nn.ModuleDict({m: PointwiseLinear(self.widths[m], width) for m in first})
        self.shared = nn.Sequential(nn.ReLU(), PointwiseLinear(width, width))
        self.projections = nn.ModuleDict({m: PointwiseLinear(w, width) for m, w in self.widths.items()})
        self.residual = PointwiseLinear(2 * width, width)
        self.modality_classifier = nn.Linear(width, len(kinds))
        self.skips = skips_of(self.encoders)
        self.head = self.task.head(len(kinds) * width)

    def encode_modality(self, modality: str, x: Tensor) -> Features:
        """The specific and the shared feature, (R, width, ...) each, and their sums at finer levels."""
        specific, first = self.task.pool(self.encoders[modality](x)), self.group[modality]
        common = self.task.pool(self.shared_encoders[first](x))
        finer = [a + b for a, b in zip(levels(specific)[1:], levels(common)[1:], strict=True)]
        return {
            "specific": self.projections[modality](deepest(specific)),
            "shared": self.shared(self.shared_projections[first](deepest(common))),
            "finer": tuple(finer),
        }

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        shared = {m: f["shared"] for m, f in features.items()}
        check_places(shared)
        specific = masked({m: f["specific"] for m, f in features.items()}, available)
        fill = fill_in_turn if self.as_released.sequential_fill else fill_with_mean
        pairs = zip(specific, fill(shared, available), strict=True)
        fused = torch.cat([self.residual(torch.cat([s, h], 1)) + s for s, h in pairs], 1)
        finer = {m: Pyramid(f["specific"], f["finer"]) for m, f in features.items()}
        fused = self.skips(fused, finer, available)
        return Output(self.head(fused), fused=fused)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encode(batch)
        output = self.fuse(features, self.draw(batch))
        return {
            "task": self.task.loss(output, batch.target).mean(),
            "alignment": self.alignment_weight * self._alignment(features, batch.available),
            "modality": self.modality_weight * self._modality(features, batch.available),
        }

    def _alignment(self, features: Mapping[str, Features], available: Tensor) -> Tensor:
        neighbours = self.as_released.neighbouring_pairs
        shared = [f["shared"].flatten(1) for f in features.values()]
        total, count = shared[0].sum(1) * 0, torch.zeros_like(available[:, 0], dtype=torch.long)
        order = range(len(shared))
        for a, b in pairwise(order) if neighbours else combinations(order, 2):
            both = available[:, a] & available[:, b]
            total = total + torch.where(both, (shared[a] - shared[b]).square().mean(1), 0)
            count = count + both
        return (total if neighbours else total / count.clamp(min=1)).mean()

    def _modality(self, features: Mapping[str, Features], available: Tensor) -> Tensor:
        specific = [f["specific"] for f in features.values()]
        pooled = torch.stack([s.reshape(*s.shape[:2], -1).mean(2) for s in specific], 1)  # (B, M, width)
        which = torch.arange(len(features), device=pooled.device).expand(len(pooled), -1)
        loss = F.cross_entropy(self.modality_classifier(pooled).transpose(1, 2), which, reduction="none")
        return torch.where(available, loss, 0).sum() / available.sum()
