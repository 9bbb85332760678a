"""PMR: a prototype loss that accelerates the slower modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmrobust import ranks
from mmrobust.batch import Batch
from mmrobust.errors import UserError
from mmrobust.methods.base import Method
from mmrobust.methods.parts.balance import mean_of_others, mean_over_rows


class Prototypes(nn.Module):
    """One modality's class prototypes: mean features of an epoch, averaged over epochs with momentum.

    Args:
        num_classes: K.
        width: D, the width of the features.
        momentum: weight of the old prototype in the new one.
    """

    centres: Tensor  # (K, D)
    known: Tensor  # (K,) bool
    sums: Tensor  # (K, D) of this epoch's features, over all ranks
    counts: Tensor  # (K,)

    def __init__(self, num_classes: int, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("centres", torch.zeros(num_classes, width))
        self.register_buffer("known", torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("sums", torch.zeros(num_classes, width))
        self.register_buffer("counts", torch.zeros(num_classes))

    def logits(self, features: Tensor) -> Tensor:
        """Negative Euclidean distance to every prototype, (B, K); the lowest finite number for classes without one."""
        distance = torch.cdist(features, self.centres)
        return -distance.masked_fill(~self.known, torch.finfo(distance.dtype).max)

    @torch.no_grad()
    def observe(self, features: Tensor, target: Tensor, available: Tensor) -> None:
        """Accumulate features (B, D) of the rows that have the modality."""
        member = (target[:, None] == torch.arange(len(self.counts), device=target.device)) & available[
            :, None
        ]
        weights = member.to(self.sums.dtype)  # (B, K); features of other rows are zeros
        self.sums += ranks.total(weights.t() @ features.to(self.sums.dtype))
        self.counts += ranks.total(weights.sum(0))

    def finish_epoch(self) -> None:
        """Update the prototypes with this epoch's means; a class without samples keeps its prototype."""
        seen = self.counts > 0
        means = self.sums / self.counts.clamp(min=1)[:, None]
        old = torch.where(self.known, self.momentum, 0.0)[:, None]
        self.centres.copy_(torch.where(seen[:, None], old * self.centres + (1 - old) * means, self.centres))
        self.known |= seen
        self.sums.zero_()
        self.counts.zero_()


class PMR(Method):
    """Prototypical modal rebalance (Fan et al., CVPR 2023, arXiv 2211.07089).

    A classifier by distance to class prototypes measures how discriminative each modality's features are. A slower
    modality receives the loss of that classifier (PCE). In the first epochs, an entropy reward keeps the predictions
    of a faster modality uncertain (PER).

    Unverified: the rules are written from memory. Readings: prototypes are means of the training features of the last
    epoch, not of an extra pass, so both terms are 0 in the first epoch; distances are Euclidean; with s_m
    the mean p(y) over the samples that have m and o_m the mean of s over the other modalities, the lag
    clip(o_m / s_m - 1, 0, 1) weighs the PCE of m and the lead clip(s_m / o_m - 1, 0, 1) its entropy, which for
    M = 2 are the published coefficients of the slow and the fast modality.

    Args:
        weight: alpha, weight of the prototypical cross-entropy.
        entropy_weight: mu, weight of the entropy reward.
        entropy_epochs: number of epochs, from the first on, with the reward.
        momentum: momentum of the prototypes over epochs.
    """

    tasks = ("classification",)
    unverified = "prototypes, coefficients and regulariser"

    def __init__(
        self, *, weight: float, entropy_weight: float, entropy_epochs: int, momentum: float, **base: Any
    ) -> None:
        super().__init__(**base)
        if not 0 <= momentum < 1:
            raise UserError(f"method.momentum={momentum} is not in [0, 1), so prototypes would not follow")
        self.weight, self.entropy_weight, self.entropy_epochs = weight, entropy_weight, entropy_epochs
        classes = self.spec.num_classes
        prototypes = {m: Prototypes(classes, width, momentum) for m, width in self.widths.items()}
        self.prototypes = cast(Mapping[str, Prototypes], nn.ModuleDict(prototypes))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encode(batch)
        terms = {"task": self.task.loss(self.fuse(features, batch.available), batch.target).mean()}
        pooled = {m: self.task.pool(x) for m, x in features.items()}
        logits = [prototypes.logits(pooled[m]) for m, prototypes in self.prototypes.items()]
        own = torch.stack([self.task.loss(y, batch.target) for y in logits], 1)  # (B, M) PCE
        entropy = torch.stack([torch.special.entr(y.softmax(1)).sum(1) for y in logits], 1)
        known = torch.stack([prototypes.known[batch.target] for prototypes in self.prototypes.values()], 1)
        counted = batch.available & known
        scores, seen = mean_over_rows((-own).exp(), counted)
        scores = scores.clamp(min=1e-12)
        others = mean_of_others(scores, seen)
        lag, lead = ((ratio - 1).clamp(0, 1) for ratio in (others / scores, scores / others))
        early = self.current_epoch < self.entropy_epochs
        terms["prototypes"] = self.weight * torch.where(counted, lag * own, 0).sum(1).mean()
        terms["entropy"] = (
            -self.entropy_weight * early * torch.where(counted, lead * entropy, 0).sum(1).mean()
        )
        for i, (m, prototypes) in enumerate(self.prototypes.items()):
            prototypes.observe(pooled[m].detach(), batch.target, batch.available[:, i])
        return terms

    @property
    def selectable_from(self) -> int:
        return max(1, self.entropy_epochs if self.entropy_weight else 0)

    def finish_epoch(self) -> None:
        for prototypes in self.prototypes.values():
            prototypes.finish_epoch()
