"""OSMD's joint adaptation network: what restores absent modalities, and what pulls that to the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrobust.batch import Batch
from mmrobust.losses import joint_adaptation, maximum_mean_discrepancy, soft_targets
from mmrobust.methods.output import mean_over_available
from mmrobust.models.fusion import mean_over, rows_like
from mmrobust.models.heads import Prediction
from mmrobust.models.pyramid import by_level, levels
from mmrobust.tasks.base import Task
from mmrobust.tasks.segmentation import nearest

DEPTHS = 3  # levels that are compared, from the deepest on


class JointAdaptation(nn.Module):
    """A real branch for every target n, hallucinations H_{u→n} that restore it from each source u, heads for both.

    Args:
        modalities: all names, in the order of (B, M) tensors.
        sources: what can be restored from.
        targets: what can be restored.
        head: makes a head.
        hallucinate: makes what restores, from a source and its targets.
        view: of a target, makes what its heads see of its features.
        thorough: whether the three deepest levels and the predictions at all resolutions are compared, or the deepest
            level and the predictions at full resolution alone.
        places: see `comparable`.
        weights: alpha, beta and temperature of `joint_adaptation`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        head: Callable[[str], nn.Module],
        hallucinate: Callable[[str, list[str]], nn.Module],
        view: Callable[[str], nn.Module],
        thorough: bool,
        places: int | None,
        weights: Mapping[str, float],
    ) -> None:
        super().__init__()
        self.modalities, self.sources, self.weights = tuple(modalities), list(sources), dict(weights)
        self.thorough, self.places = thorough, places
        self.branch_heads = nn.ModuleDict({n: head(n) for n in targets})
        self.hallucinations = nn.ModuleDict(
            {u: hallucinate(u, [n for n in targets if n != u]) for u in sources}
        )
        self.restored_heads = nn.ModuleDict({n: head(n) for n in targets})
        self.branch_views = nn.ModuleDict({n: view(n) for n in targets})
        self.restored_views = nn.ModuleDict({n: view(n) for n in targets})

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
            features: of each modality `own`.
            restored: what `restore` made of them.
            sources: (B, M) bool, what was restored from.

        Returns:
            `branch` and `restored`, cross-entropies of the real and of the restored branches, and `adaptation`.
        """
        terms = []
        for n, student in restored.items():
            i = self.modalities.index(n)
            there = batch.available[:, i]
            known = sources.index_fill(1, torch.tensor(i, device=sources.device), False).any(1)
            real, made = self.branch_views[n](features[n]["own"]), self.restored_views[n](student)
            taught, predicted = self.branch_heads[n](real), self.restored_heads[n](made)
            rows = there & known
            rows = rows & (rows.sum() > 1)  # a single pair has no distribution
            valid = batch.target != task.ignore_index
            adaptation = self._adapt(levels(made), levels(real), predicted, taught, rows, valid)
            branch = mean_over_available(task.loss(taught, batch.target), there)
            own = mean_over_available(task.loss(predicted, batch.target), known)
            terms.append(torch.stack([branch, own, adaptation]))
        return dict(zip(("branch", "restored", "adaptation"), torch.stack(terms).sum(0), strict=True))

    def _adapt(
        self,
        students: Sequence[Tensor],
        teachers: Sequence[Tensor],
        student: Prediction,
        teacher: Prediction,
        rows: Tensor,
        valid: Tensor,
    ) -> Tensor:
        """Of the given rows (B,) and places, `valid` (B,) or (B, H, W), the teacher's side a constant."""
        depths = DEPTHS if self.thorough else 1
        pairs = [
            [comparable(x, rows, self.places) for x in pair]
            for pair in zip(students[:depths], teachers[:depths], strict=True)
        ]
        logits = [labelled(x.logits, rows_like(rows, valid) & valid) for x in (student, teacher)]
        (made, real), (ours, theirs) = pairs[0], logits
        total = joint_adaptation(made, real, ours, theirs, **self.weights)
        if not self.thorough:
            return total
        for made, real in pairs[1:]:
            total = total + self.weights["alpha"] * maximum_mean_discrepancy(made, real.detach())
        for ours, theirs in zip(student.side, teacher.side, strict=True):
            places = nearest(valid, ours.shape[-2:])
            logits = [labelled(x, rows_like(rows, places) & places) for x in (ours, theirs)]
            divergence = soft_targets(*logits, temperature=self.weights["temperature"])
            total = total + self.weights["beta"] * divergence
        return total


def comparable(features: Tensor, rows: Tensor, places: int | None) -> Tensor:
    """The given rows (B,) bool as vectors that a kernel can compare; maps averaged to places × places first, if given."""
    if features.dim() == 4 and places:
        features = F.adaptive_avg_pool2d(features, places)
    return features[rows].flatten(1)


def labelled(logits: Tensor, rows: Tensor) -> Tensor:
    """The scores (P, C) of all places that count: (B, C) with rows (B,) bool, (B, C, H, W) with (B, H, W)."""
    return logits.movedim(1, -1)[rows]
