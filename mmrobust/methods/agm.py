"""AGM: gradient modulation by the deviation of each modality's score from its running mean."""

from __future__ import annotations

from collections.abc import Mapping
from math import factorial
from typing import Any

import torch
from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.combinations import all_combinations, combination_masks
from mmrobust.errors import UserError
from mmrobust.methods.base import Features, Method
from mmrobust.methods.parts.balance import gradients, mean_of_others, mean_over_rows

# Upper bound of the combinations that every step predicts.
MOST = 4095


def shapley_weights(masks: Tensor) -> Tensor:
    """Weights (M, K) that combine the predictions of all K = 2^M - 1 combinations to the modalities' responses.

    Modality m's response is its Shapley value: the change of the prediction when m joins, averaged over all orders of
    joining. The prediction of the empty combination is 0. For M = 2: (1/2) (f(1, 2) - f(2) + f(1)) and its mirror.
    The responses sum to f(all).

    Args:
        masks: (K, M) bool, the combinations.
    """
    count, sizes = masks.shape[1], masks.sum(1).tolist()
    joined = [factorial(size - 1) * factorial(count - size) for size in sizes]  # m came last into it
    before = [factorial(size) * factorial(max(count - size - 1, 0)) for size in sizes]  # m comes next
    weights = torch.where(masks, torch.tensor(joined)[:, None], -torch.tensor(before)[:, None])
    return weights.t().float() / factorial(count)


class AGM(Method):
    """Adaptive gradient modulation (Li et al., ICCV 2023, arXiv 2308.07686).

    Predictions with hidden modalities isolate each modality's own response. The ratio r of its score to the mean score
    of the others, compared with the running mean tau of that ratio, shows whether the modality learns faster than
    usual. The gradient of its encoder is multiplied by exp(-alpha (r - tau)).

    Unverified: the rules are written from memory. Readings: responses for any M are Shapley values (see
    `shapley_weights`), with f(nothing) = 0; the score is the mean log probability of the true class under the
    response, over the samples that have the modality; r_m = exp(s_m - mean of the others' s); tau is the mean
    of r over all steps including the current one, so the first step is not modulated; all parameters of an encoder
    are modulated. Two exponents are bounded to prevent overflow.

    Args:
        alpha: strength of the modulation.
        max_exponent: bound of |s_m - mean of the others' s|, and of |alpha (r - tau)|.
    """

    unverified = "responses, scores, running mean and coefficients"
    ratio: Tensor
    steps: Tensor
    masks: Tensor
    weights: Tensor

    def __init__(self, *, alpha: float, max_exponent: float, **base: Any) -> None:
        super().__init__(**base)
        self.alpha, self.max_exponent = alpha, max_exponent
        combinations = all_combinations(self.modalities)
        if len(combinations) > MOST:
            raise UserError(
                f"method=agm predicts from every combination in every step: {len(combinations)} of {len(self.modalities)} modalities, "
                f"more than {MOST}; take fewer modalities, or another method"
            )
        masks = combination_masks(combinations, self.modalities)
        self.register_buffer("masks", masks, persistent=False)
        self.register_buffer("weights", shapley_weights(masks), persistent=False)
        self.register_buffer("ratio", torch.zeros(len(self.modalities)))  # tau
        self.register_buffer("steps", torch.zeros(len(self.modalities)))  # number of steps with the modality
        self.coefficients = torch.ones(len(self.modalities))  # of the last batch

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encode(batch)
        with torch.no_grad():
            responses = self.responses(features, batch.available)
            scores = torch.stack([-self.task.loss(y, batch.target) for y in responses], 1)  # (B, M)
            self.coefficients = self.compare(*mean_over_rows(scores, batch.available))
        return {"task": self.task.loss(self.fuse(features, batch.available), batch.target).mean()}

    def responses(self, features: Mapping[str, Features], available: Tensor) -> Tensor:
        """Each modality's own response, (M, B, C, ...), 0 for absent modalities."""
        responses: Tensor | float = 0.0
        for mask, weights in zip(self.masks, self.weights.t(), strict=True):
            combination = mask & available
            something = combination.any(1, keepdim=True)
            logits = self.fuse(features, torch.where(something, combination, available)).logits
            logits = torch.where(something.reshape(-1, *[1] * (logits.dim() - 1)), logits, 0)
            responses = responses + weights.reshape(-1, *[1] * logits.dim()) * logits
        assert isinstance(responses, Tensor)
        return responses

    def compare(self, scores: Tensor, seen: Tensor) -> Tensor:
        """Update tau with the scores (M,) of a batch; return the coefficients (M,), 1 for an absent modality."""
        difference = (scores - mean_of_others(scores, seen)).clamp(-self.max_exponent, self.max_exponent)
        ratio = difference.exp()
        self.steps += seen
        self.ratio += torch.where(seen, (ratio - self.ratio) / self.steps.clamp(min=1), 0)
        exponent = (self.alpha * (self.ratio - ratio)).clamp(-self.max_exponent, self.max_exponent)
        return torch.where(seen, exponent.exp(), 1)

    def modulate(self) -> None:
        for m, coefficient in zip(self.modalities, self.coefficients, strict=True):
            for gradient in gradients(self.encoders[m].parameters()):
                gradient.mul_(coefficient)
