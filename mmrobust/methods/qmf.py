"""QMF: quality-aware multimodal fusion, with energy-based confidences and a rank loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust import ranks
from mmrobust.batch import Batch
from mmrobust.errors import UserError
from mmrobust.methods.base import Features, Method, Output, Prediction, stacked_logits


@dataclass(frozen=True)
class AsReleased:
    """Deviations of the released code from the paper, one switch each; all off follows the paper.

    Args:
        inverted_margin: the margin is subtracted instead of added, max(0, s (e_i - e_j) - |k_i - k_j|) with
            s = sgn(k_i - k_j): a wrong order is tolerated up to the margin.
    """

    inverted_margin: bool


class QMF(Method):
    """Quality-aware multimodal fusion (Zhang et al., ICML 2023, arXiv 2306.02050).

    Each modality has its own head. The fused logits are the sum of the available modalities' logits, weighted by
    their confidence e = log sum_c exp(logit_c) / 10 (a negative energy, without gradient). A rank loss makes the
    confidences follow the samples' training losses: of two samples, the one with the lower mean loss k so far, scaled
    to [0, 1] over the training set, should have the higher confidence, by a margin of the difference in k. In
    segmentation the weights are maps, and a sample's confidence is the mean over its pixels.

    Readings: the released code pairs each row with the next of its (shuffled) batch; this method pairs the rows of one
    rank if both have the modality. The release sums losses; this method divides the sums by the number of times that a
    sample was seen, which is equivalent while all samples are seen equally often. The current step's losses are added
    before ranking, as in the released text-image code (the RGB-D code ranks first).

    Args:
        unimodal_weight: weight of the unimodal losses, which are summed over the modalities.
        rank_weight: weight of the rank losses, which are summed over the modalities.
        temperature: divisor of log-sum-exp, above 0.
        as_released: see `AsReleased`.

    Raises:
        UserError: the temperature is not above 0.
    """

    loss_total: Tensor
    loss_count: Tensor

    def __init__(
        self,
        *,
        unimodal_weight: float,
        rank_weight: float,
        temperature: float,
        as_released: Mapping[str, bool],
        **base: Any,
    ) -> None:
        super().__init__(fusion=None, **base)
        if temperature <= 0:
            raise UserError(f"method.temperature={temperature} is not above 0; 10 is what was released")
        self.unimodal_weight, self.rank_weight = unimodal_weight, rank_weight
        self.temperature, self.as_released = temperature, AsReleased(**as_released)
        self.heads = nn.ModuleDict({m: self.task.head(width) for m, width in self.widths.items()})
        for name in ("loss_total", "loss_count"):  # of every training sample, by modality
            self.register_buffer(name, torch.zeros(self.spec.num_train, len(self.modalities)))

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        unimodal = {m: head(features[m]) for m, head in self.heads.items()}
        logits = stacked_logits(unimodal)  # (B, M, C, ...)
        confidence = logits.logsumexp(2) / self.temperature  # (B, M, ...)
        present = available.reshape(*available.shape, *[1] * (logits.dim() - 2))
        fused = torch.where(present, confidence.detach()[:, :, None] * logits, 0).sum(1)
        return Output(Prediction(fused), unimodal, extras={"confidence": confidence})

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        available = batch.available
        output = self.fuse(self.encode(batch), available)
        unimodal = torch.stack([self.task.loss(x, batch.target) for x in output.unimodal.values()], 1)
        unimodal = torch.where(available, unimodal, 0)  # (B, M)
        self._remember(batch.index, unimodal, available)
        confidence = output.extras["confidence"].reshape(*available.shape, -1).mean(2)
        difficulty = self.difficulty()[batch.index]
        inverted = self.as_released.inverted_margin
        return {
            "fused": self.task.loss(output, batch.target).mean(),
            "unimodal": self.unimodal_weight * unimodal.mean(0).sum(),
            "rank": self.rank_weight * rank_loss(confidence, difficulty, available, inverted_margin=inverted),
        }

    def difficulty(self) -> Tensor:
        """Mean loss of every training sample so far, (num_train, M), scaled to [0, 1] for each modality."""
        seen = self.loss_count > 0
        mean = self.loss_total / self.loss_count.clamp(min=1)
        low = mean.masked_fill(~seen, torch.inf).amin(0)
        high = mean.masked_fill(~seen, -torch.inf).amax(0)
        scale = (high - low).clamp(min=torch.finfo(mean.dtype).tiny)
        return torch.where(seen, (mean - low) / scale, 0)

    def _remember(self, index: Tensor, loss: Tensor, available: Tensor) -> None:
        for state, value in ((self.loss_total, loss.detach()), (self.loss_count, available)):
            state += ranks.total(torch.zeros_like(state).index_add_(0, index, value.to(state.dtype)))


def rank_loss(confidence: Tensor, difficulty: Tensor, available: Tensor, *, inverted_margin: bool) -> Tensor:
    """Hinge loss of the order of confidences: max(0, |k_i - k_j| - sgn(k_j - k_i) (e_i - e_j)).

    Args:
        confidence: e, (B, M).
        difficulty: k, (B, M), without gradient; the easier of two rows should have the higher confidence.
        available: (B, M) bool; a pair (a row and the next, cyclically) counts if both rows have the modality.
        inverted_margin: see `AsReleased`.

    Returns:
        The mean over the B pairs, summed over the modalities.
    """
    gap = difficulty.roll(-1, 0) - difficulty
    margin = -gap.abs() if inverted_margin else gap.abs()
    loss = (margin - gap.sign() * (confidence - confidence.roll(-1, 0))).relu()
    return torch.where(available & available.roll(-1, 0), loss, 0).mean(0).sum()
