"""OSMD's joint adaptation network: what restores absent modalities, and what pulls that to the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrobust.batch import Batch
from mmrobust.losses import joint_adaptation
from mmrobust.methods.output import mean_over_available
from mmrobust.models.fusion import mean_over, rows_like
from mmrobust.models.pyramid import by_level, deepest
from mmrobust.tasks.base import Task


class JointAdaptation(nn.Module):
    """A real branch for every target n, hallucinations H_{u→n} that restore it from each source u, heads for both.

    Args:
        modalities: all names, in the order of (B, M) tensors.
        sources: what can be restored from.
        targets: what can be restored.
        head: makes a head.
        hallucinate: makes what restores, from a source and its targets: see `translation.Hallucination`.
        weights: alpha, beta and temperature of `joint_adaptation`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        head: Callable[[], nn.Module],
        hallucinate: Callable[[str, list[str]], nn.Module],
        weights: Mapping[str, float],
    ) -> None:
        super().__init__()
        self.modalities, self.sources, self.weights = tuple(modalities), list(sources), dict(weights)
        self.branch_heads = nn.ModuleDict({n: head() for n in targets})
        self.hallucinations = nn.ModuleDict(
            {u: hallucinate(u, [n for n in targets if n != u]) for u in sources}
        )
        self.restored_heads = nn.ModuleDict({n: head() for n in targets})

    def restore(self, features: Mapping[str, Any], sources: Tensor) -> dict[str, Any]:
        """Each target n as the mean of H_{u→n} over the other modalities in `sources` (B, M); zeros without."""
        restored = {}
        for n in self.branch_heads:
            others = [u for u in self.sources if u != n]
            given = sources[:, [self.modalities.index(u) for u in others]]
            mean = partial(mean_over, available=given)
            restored[n] = by_level(mean, {u: features[u]["restored"][n] for u in others})
        return restored

    def forward(
        self,
        features: Mapping[str, Any],
        restored: Mapping[str, Any],
        batch: Batch,
        sources: Tensor,
        task: Task,
    ) -> dict[str, Tensor]:
        """The losses, summed over the targets.

        Args:
            features: of each modality `own`, and `frozen`, (feature, logits), if that is to be followed instead.
            restored: what `restore` made of them.
            sources: (B, M) bool, what was restored from.

        Returns:
            `branch` and `restored`, cross-entropies of the real and of the restored branches, and `adaptation`.
        """
        valid = batch.target != task.ignore_index  # (B,) or (B, H, W)
        terms = []
        for n, student in restored.items():
            i = self.modalities.index(n)
            there = batch.available[:, i]
            known = sources.index_fill(1, torch.tensor(i, device=sources.device), False).any(1)
            real, predicted = self.branch_heads[n](features[n]["own"]), self.restored_heads[n](student)
            teacher, teacher_logits = features[n].get("frozen", (features[n]["own"], real.logits))
            rows = there & known
            rows = rows & (rows.sum() > 1)  # a single pair has no distribution
            places = rows_like(rows, valid) & valid
            adaptation = joint_adaptation(
                comparable(deepest(student), rows),
                comparable(deepest(teacher), rows),
                labelled(predicted.logits, places),
                labelled(teacher_logits, places),
                **self.weights,
            )
            branch = mean_over_available(task.loss(real, batch.target), there)
            own = mean_over_available(task.loss(predicted, batch.target), known)
            terms.append(torch.stack([branch, own, adaptation]))
        return dict(zip(("branch", "restored", "adaptation"), torch.stack(terms).sum(0), strict=True))


def comparable(features: Tensor, rows: Tensor) -> Tensor:
    """The given rows (B,) bool as vectors that a kernel can compare; maps are averaged to 4 × 4 places first."""
    if features.dim() == 4:
        features = F.adaptive_avg_pool2d(features, 4)
    return features[rows].flatten(1)


def labelled(logits: Tensor, rows: Tensor) -> Tensor:
    """The scores (P, C) of all places that count: (B, C) with rows (B,) bool, (B, C, H, W) with (B, H, W)."""
    return logits.movedim(1, -1)[rows]
