"""MLA: modalities alternate in training a shared head, whose projected gradient preserves earlier modalities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust import ranks
from mmrobust.batch import Batch
from mmrobust.errors import UserError
from mmrobust.methods.base import Features, Method, Output, Prediction, mean_over_available, stacked_logits
from mmrobust.models.encoders import PointwiseLinear
from mmrobust.models.heads import LinearHead
from mmrobust.models.resting import drop_gradients


def shrink(projection: Tensor, mean: Tensor, alpha: float) -> Tensor:
    """P - (P z)(P z)^T / (alpha + z^T P z): recursive least squares, symmetric positive semi-definite.

    Args:
        projection: P, (D, D).
        mean: z, (D,), a batch's mean feature.
        alpha: above 0; a smaller value removes more of the direction.
    """
    k = projection @ mean
    return projection - torch.outer(k, k) / (alpha + mean @ k)


def mix_by_entropy(logits: Tensor, available: Tensor) -> Tensor:
    """Log of the weighted mean of the predictions; the weights are the softmax of the negative entropies.

    The published weights exp(max_j e_j - e_m), normalised, equal this softmax.

    Args:
        logits: (B, M, C).
        available: (B, M) bool, the modalities to average.

    Returns:
        (B, C) log probabilities.
    """
    entropy = torch.special.entr(logits.softmax(2)).sum(2)
    weights = (-entropy).masked_fill(~available, torch.finfo(logits.dtype).min).log_softmax(1)
    return torch.where(
        available[..., None], weights[..., None] + logits.log_softmax(2), -torch.inf
    ).logsumexp(1)


class MLA(Method):
    """Multimodal learning with alternating unimodal adaptation (Zhang et al., CVPR 2024, arXiv 2311.10707).

    In every batch the modalities take turns. Each turn trains the modality's own encoder and a head that all share, so
    none depends on another's progress. The head's gradient is projected away from the features of earlier turns, so
    that a turn does not undo the previous ones. Certainty weights the modalities' predictions.

    Unverified: the rules are written from memory. Readings: P starts as the identity, is updated with the mean feature
    of every turn (after the turn's step, over the samples that have the modality) and is never reset; it acts on the
    head's weights, not on its bias. Linear maps project narrower encoders to the width of the widest.

    Args:
        alpha: regularisation of the recursive least squares.
        project: whether the head's gradient is projected.
    """

    tasks = ("classification",)
    unverified = "projection of the head's gradient and test-time fusion"
    projection: Tensor

    def __init__(self, *, alpha: float, project: bool, **base: Any) -> None:
        super().__init__(fusion=None, **base)
        if alpha <= 0:
            raise UserError(f"method.alpha={alpha} is not above 0, so the projection would be undefined")
        self.alpha, self.project = alpha, project
        width = max(self.widths.values())
        self.adapters = nn.ModuleDict(
            {m: nn.Identity() if w == width else PointwiseLinear(w, width) for m, w in self.widths.items()}
        )
        self.shared_head = LinearHead(width, self.spec.num_classes)
        self.register_buffer("projection", torch.eye(width))
        self.turn = self.modalities[0]  # the modality of the current update

    def encode_modality(self, modality: str, x: Tensor) -> Features:
        return self.adapters[modality](super().encode_modality(modality, x))

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        unimodal = {m: self.shared_head(x) for m, x in features.items()}
        return Output(Prediction(mix_by_entropy(stacked_logits(unimodal), available)), unimodal)

    def updates(self, batch: Batch) -> Iterator[dict[str, Tensor]]:
        features = self.encode(batch)  # once: a turn changes no other modality's encoder
        for i, m in enumerate(self.modalities):
            self.turn = m
            available = batch.available[:, i]
            loss = self.task.loss(self.shared_head(features[m]), batch.target)
            # DDP waits for a gradient of every parameter; `modulate` takes those of the others away again.
            others = torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum()
            yield {m: mean_over_available(loss, available) + 0 * others}
            mean = ranks.mean_of(features[m].detach(), available[:, None].expand_as(features[m]))
            if self.project:  # a modality that no row has changes nothing: its mean is 0
                self.projection.copy_(shrink(self.projection, mean.to(self.projection.dtype), self.alpha))

    def modulate(self) -> None:
        others = (m for m in self.modalities if m != self.turn)
        drop_gradients(part[m] for m in others for part in (self.encoders, self.adapters))
        gradient = self.shared_head.weight.grad
        if self.project and gradient is not None:
            gradient.copy_(gradient @ self.projection)
