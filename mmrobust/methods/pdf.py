"""PDF: predictive dynamic fusion, with weights from predicted confidences."""

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
        linear_confidence: the three layers of a confidence network have no activations between them, so that the
            network is one linear map and a sigmoid.
    """

    linear_confidence: bool


class PDF(Method):
    """Predictive dynamic fusion (Cao et al., ICML 2024, arXiv 2406.04802).

    Each modality has its own head, and a confidence network that predicts, from the feature, the probability that the
    head assigns to the true class. The confidences determine the collaborative beliefs (`co_belief`), whose softmax
    weights the available modalities' logits. At inference, a belief is first multiplied by the distance of the
    modality's prediction from a uniform one, relative to the others (`calibration`). No gradient flows through the
    weights, nor from a confidence into an encoder.

    Readings, from the released code (two modalities): the confidence loss is an absolute error; calibration acts at
    inference only. For more modalities, a confidence is compared with the product of the others', as the formula
    states; in the calibration, the mean of the other available modalities replaces "the other" (ours).

    Args:
        unimodal_weight: weight of the unimodal losses, which are summed over the modalities.
        confidence_weight: weight of the confidence losses, which are summed over the modalities.
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
    """Build a confidence network with the released layer sizes, (B, width) -> (B, 1), which returns a logit."""
    between = nn.Identity if linear else nn.ReLU
    return nn.Sequential(
        nn.Linear(width, 2 * width), between(), nn.Linear(2 * width, width), between(), nn.Linear(width, 1)
    )


def co_belief(log_confidence: Tensor, available: Tensor) -> Tensor:
    """Collaborative belief c_m + log(prod_{j != m} c_j) / log(prod_j c_j) over the available modalities, (B, M).

    The first term is the modality's own confidence (mono-confidence). The second (holo-confidence) grows as the others'
    confidence falls; it is 0 for a single available modality.

    Args:
        log_confidence: log c_m, at most 0, (B, M).
        available: (B, M) bool; the belief of absent ones means nothing.
    """
    logs = torch.where(available, log_confidence, 0)
    total = logs.sum(1, keepdim=True).clamp(max=-1e-8)  # 0 if all are certain
    return log_confidence.exp() + (total - logs) / total


def calibration(logits: Tensor, available: Tensor) -> Tensor:
    """Calibration min(1, u_m / mean of u_j over the others), u = mean over the classes of |p - 1 / C|, (B, M).

    A modality that is less certain than the others receives less weight; a single available modality receives 1.

    Args:
        logits: (B, M, C).
        available: (B, M) bool; the result is undefined for absent modalities.
    """
    certainty = (logits.softmax(2) - 1 / logits.shape[2]).abs().mean(2)
    certainty = torch.where(available, certainty, 0)
    others = certainty.sum(1, keepdim=True) - certainty
    count = available.sum(1, keepdim=True) - 1
    ratio = certainty * count / others.clamp(min=torch.finfo(others.dtype).tiny)
    return torch.where(count > 0, ratio.clamp(max=1), 1)
