"""Late fusion: one network per modality, and the mean of their logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust.batch import Batch
from mmrobust.methods.base import Features, Method, Output, Prediction, mean_over_available, stacked_logits
from mmrobust.tasks.registry import TASKS


class LateFusion(Method):
    """Unimodal networks whose logits are averaged over the available modalities.

    Args:
        unimodal_weight: weight of the unimodal losses, which are summed over the modalities.
        fused_weight: weight of the averaged logits' loss; 0 trains the networks independently (a unimodal ensemble).
    """

    # The method uses the task's head and loss only, so it serves every task.
    tasks = tuple(TASKS)

    def __init__(self, *, unimodal_weight: float, fused_weight: float, **base: Any) -> None:
        super().__init__(fusion=None, **base)
        self.unimodal_weight, self.fused_weight = unimodal_weight, fused_weight
        self.heads = nn.ModuleDict({m: self.task.head(width) for m, width in self.widths.items()})

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        unimodal = {m: head(features[m]) for m, head in self.heads.items()}
        logits = stacked_logits(unimodal)  # (B, M, C, ...)
        present = available.reshape(*available.shape, *[1] * (logits.dim() - 2))
        fused = torch.where(present, logits, 0).sum(1) / present.sum(1)
        return Output(Prediction(fused), unimodal)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        output = self.fuse(self.encode(batch), batch.available)
        terms = {}
        for i, (m, prediction) in enumerate(output.unimodal.items()):
            loss = self.task.loss(prediction, batch.target)
            terms[m] = self.unimodal_weight * mean_over_available(loss, batch.available[:, i])
        terms["fused"] = self.fused_weight * self.task.loss(output, batch.target).mean()
        return terms
