"""Proper scoring rules for probabilities of several classes, which torchmetrics lacks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

SMALLEST = 1e-12  # lower bound of probabilities, which keeps the loss finite


class _Mean(Metric):
    """Base of metrics that average a score over all samples."""

    higher_is_better = False
    is_differentiable = True
    full_state_update = False
    total: Tensor
    samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("samples", torch.tensor(0), dist_reduce_fx="sum")

    def score(self, probabilities: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Add samples: probabilities (N, C), classes (N,)."""
        self.total += self.score(probabilities.double(), target).sum()
        self.samples += len(target)

    def compute(self) -> Tensor:
        """The mean score, a scalar."""
        return self.total / self.samples


class Brier(_Mean):
    """Brier score: the squared distance between probabilities and truth, summed over the classes, in [0, 2].

    For multilabel targets (N, C), the sum is over the labels. Source: Brier, Monthly Weather Review 78(1), 1950.
    """

    def score(self, probabilities: Tensor, target: Tensor) -> Tensor:
        truth = target if target.dim() > 1 else F.one_hot(target, probabilities.shape[1])
        return (probabilities - truth).square().sum(1)


class NegativeLogLikelihood(_Mean):
    """Negative log-likelihood in nats. For multilabel targets (N, C), it is summed over the labels."""

    def score(self, probabilities: Tensor, target: Tensor) -> Tensor:
        if target.dim() == 1:
            return -probabilities.gather(1, target[:, None])[:, 0].clamp(min=SMALLEST).log()
        right = torch.where(target.bool(), probabilities, 1 - probabilities)
        return -right.clamp(min=SMALLEST).log().sum(1)
