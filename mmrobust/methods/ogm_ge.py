"""OGM-GE: gradient modulation that slows down the dominant modality, with added gradient noise."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from mmrobust import keyed
from mmrobust.batch import Batch
from mmrobust.methods.base import Method
from mmrobust.methods.parts.balance import gradients, mean_of_others, mean_over_rows


def damping(scores: Tensor, seen: Tensor, alpha: float) -> Tensor:
    """Coefficients k (M,) of the encoders' gradients, in (0, 1].

    A modality's discrepancy ratio rho is its score over the mean score of the others (for M = 2: the other);
    k = 1 - tanh(alpha * rho) where rho > 1, else 1.

    Args:
        scores: (M,) mean probability of the true class from each modality alone.
        seen: (M,) bool: modalities of this batch; the others have k = 1.
        alpha: strength.
    """
    rho = scores / mean_of_others(scores, seen).clamp(min=1e-12)
    return torch.where(seen & (rho > 1), 1 - torch.tanh(alpha * rho), 1)


class OGMGE(Method):
    """On-the-fly gradient modulation with generalization enhancement (Peng et al., CVPR 2022, arXiv 2203.15332).

    Plain joint training that scales down the gradients of an encoder whose modality predicts better than the others.
    Noise of the gradients' strength compensates for the loss of generalization.

    Unverified: the rules are written from memory. Readings: scores are means over the samples that have the modality
    (equivalent to the paper's sums for complete samples); a modality's own logits hide the others from fusion and head
    and include 1/M of the head's bias, which for a concatenation is the published W_m z_m + b / 2. The modulation acts
    on the encoder's weights with at least two dimensions: the convolutions of the published networks and their
    counterparts in encoders of vectors and sequences. The noise has the standard deviation of the gradient before
    scaling. UDML's released code uses the name OGM_GE for another method (gradient magnitudes).

    Args:
        alpha: strength of the modulation.
        noise: whether to add noise (GE); without it the method is OGM.
        start: first epoch of the modulation.
        end: last epoch of the modulation; null: the last of the training.
    """

    tasks = ("classification",)
    unverified = "scores, coefficients, noise and epochs of the modulation"

    def __init__(self, *, alpha: float, noise: bool, start: int, end: int | None, **base: Any) -> None:
        super().__init__(**base)
        self.alpha, self.noise, self.first, self.last = alpha, noise, start, end
        self.coefficients = torch.ones(len(self.modalities))  # of the last batch

    @property
    def selectable_from(self) -> int:
        return self.first

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encode(batch)
        with torch.no_grad():
            bias = (1 - 1 / len(self.modalities)) * cast(nn.Linear, self.head).bias
            unimodal = [logits - bias for logits in self.unimodal(features).values()]
            scores = torch.stack([(-self.task.loss(y, batch.target)).exp() for y in unimodal], 1)  # (B, M)
            self.coefficients = damping(*mean_over_rows(scores, batch.available), self.alpha)
        return {"task": self.task.loss(self.fuse(features, batch.available), batch.target).mean()}

    def modulate(self) -> None:
        if self.current_epoch < self.first or (self.last is not None and self.current_epoch > self.last):
            return
        seed = keyed.seed_of(self.seed, "gradient noise", self.global_step)  # the same on all ranks
        generator = torch.Generator(self.coefficients.device).manual_seed(seed)
        for m, k in zip(self.modalities, self.coefficients, strict=True):
            for gradient in gradients(p for p in self.encoders[m].parameters() if p.dim() >= 2):
                deviation = gradient.std(correction=0)
                gradient.mul_(k)
                if self.noise:
                    noise = torch.randn(gradient.shape, generator=generator, device=gradient.device)
                    gradient.add_(deviation * noise)
