"""PDF: predictive dynamic fusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrobust.batch import Batch
from mmrobust.methods.base import Features, Method, Output, Prediction, mean_over_available, stacked_logits


@dataclass(frozen=True)
class AsReleased:
    """Deviations of the released code from the paper, one switch each; all off follows the paper.

    Args:
        linear_confidence: the three layers of a confidence network have nothing between them, so that it is
            one linear map and a sigmoid.
    """

    linear_confidence: bool


class PDF(Method):
    """Predictive dynamic fusion (Cao et al., ICML 2024, arXiv 2406.04802).

    Each modality has its own head, and a network that predicts from its feature how probable its head finds
    the true class (its confidence). From the confidences follow the collaborative beliefs (`co_belief`), and
    from these the weights of the available modalities' logits, a softmax. At inference a belief is first
    multiplied by how far the modality's prediction is from a uniform one, relative to the others
    (`calibration`). No gradient flows through the weights, nor from a confidence into an encoder.

    Readings, from the released code (two modalities): the confidence loss is an absolute error; calibration
    acts at inference alone. For more modalities a confidence is compared with the product of the others', as
    the formula is written, and "the other" of the calibration is the mean of the other available ones (ours).

    Args:
        unimodal_weight: weight of the unimodal losses, which are summed over the modalities.
        confidence_weight: of the confidence losses, summed over the modalities.
        calibrate_in_training: whether the calibration acts in training too.
        as_released: see `AsReleased`.
    """

    tasks = ("classification",)

    def __init__(
        self,
        *,
        unimodal_weight: float,
        confidence_weight: float,
        calibrate_in_training: bool,
        as_released: Mapping[str, bool],
        **base: Any,
    ) -> None:
        super().__init__(fusion=None, **base)
        self.unimodal_weight, self.confidence_weight = unimodal_weight, confidence_weight
        self.calibrate_in_training = calibrate_in_training
        linear = AsReleased(**as_released).linear_confidence
        self.heads = nn.ModuleDict({m: self.task.head(width) for m, width in self.widths.items()})
        self.confidences = nn.ModuleDict(
            {m: confidence_network(width, linear=linear) for m, width in self.widths.items()}
        )

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        unimodal = {m: head(features[m]) for m, head in self.heads.items()}
        logits = stacked_logits(unimodal)  # (B, M, C)
        scores = [network(features[m].detach()) for m, network in self.confidences.items()]
        log_confidence = F.logsigmoid(torch.cat(scores, 1))  # (B, M)
        belief = co_belief(log_confidence, available)
        if self.calibrate_in_training or not self.training:
            belief = belief * calibration(logits, available)
        weights = belief.masked_fill(~available, torch.finfo(belief.dtype).min).softmax(1).detach()
        fused = torch.where(available[..., None], weights[..., None] * logits, 0).sum(1)
        return Output(
            Prediction(fused), unimodal, extras={"confidence": log_confidence.exp(), "weights": weights}
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        available = batch.available
        output = self.fuse(self.encode(batch), available)
        loss = torch.stack([self.task.loss(x, batch.target) for x in output.unimodal.values()], 1)  # (B, M)
        true_class = (-loss.detach()).exp()  # the probability of the true class
        error = (output.extras["confidence"] - true_class).abs()
        return {
            "fused": self.task.loss(output, batch.target).mean(),
            "unimodal": self.unimodal_weight * mean_over_available(loss, available).sum(),
            "confidence": self.confidence_weight * mean_over_available(error, available).sum(),
        }


def confidence_network(width: int, *, linear: bool) -> nn.Sequential:
    """(B, width) -> (B, 1), the logit of a confidence; layers of the released sizes."""
    between = nn.Identity if linear else nn.ReLU
    return nn.Sequential(
        nn.Linear(width, 2 * width), between(), nn.Linear(2 * width, width), between(), nn.Linear(width, 1)
    )


def co_belief(log_confidence: Tensor, available: Tensor) -> Tensor:
    """c_m + log(prod_{j != m} c_j) / log(prod_j c_j), over the available modalities, (B, M).

    The first term is the modality's own confidence (mono-confidence), the second rises with the others' doubt
    (holo-confidence); it is 0 for a modality alone.

    Args:
        log_confidence: log c_m, at most 0, (B, M).
        available: (B, M) bool; the belief of absent ones means nothing.
    """
    logs = torch.where(available, log_confidence, 0)
    total = logs.sum(1, keepdim=True).clamp(max=-1e-8)  # 0 if all are certain
    return log_confidence.exp() + (total - logs) / total


def calibration(logits: Tensor, available: Tensor) -> Tensor:
    """min(1, u_m / mean of u_j over the others), u = mean over the classes of |p - 1 / C|, (B, M).

    A modality less certain than the others counts less; one alone has 1.

    Args:
        logits: (B, M, C).
        available: (B, M) bool; what comes out for absent ones means nothing.
    """
    certainty = (logits.softmax(2) - 1 / logits.shape[2]).abs().mean(2)
    certainty = torch.where(available, certainty, 0)
    others = certainty.sum(1, keepdim=True) - certainty
    count = available.sum(1, keepdim=True) - 1
    ratio = certainty * count / others.clamp(min=torch.finfo(others.dtype).tiny)
    return torch.where(count > 0, ratio.clamp(max=1), 1)
