"""AGM: gradients follow how far each modality's own response is from where it usually stands."""

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

# Combinations that are predicted in every step.
MOST = 4095


def shapley_weights(masks: Tensor) -> Tensor:
    """Weights (M, K) with which the predictions of all K = 2^M - 1 combinations give the modalities' responses.

    Modality m's response is its Shapley value, the mean over all orders of what it changes when it joins; what
    nothing predicts is 0. For M = 2: (1/2) (f(1, 2) - f(2) + f(1)) and its mirror. Responses sum to f(all).

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

    Each modality's own response is isolated by predicting with others hidden. Its score against the mean of
    the others, compared with the running mean of that ratio, says whether the modality is faster than usual;
    its encoder's gradient is multiplied by exp(-alpha (r - tau)).

    Unverified: the rules rest on memory. Readings: responses for any M are Shapley values (see
    `shapley_weights`), with f(nothing) = 0; the score is the mean log probability of the true class under the
    response, over the samples that have the modality; r_m = exp(s_m - mean of the others' s); tau is the mean
    of r over all steps, this one included, so the first step is not modulated; all parameters of an encoder
    are. Two exponents are bounded, so that nothing overflows.

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
        self.register_buffer("steps", torch.zeros(len(self.modalities)))  # that had the modality
        self.coefficients = torch.ones(len(self.modalities))  # of the last batch

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encode(batch)
        with torch.no_grad():
            responses = self.responses(features, batch.available)
            scores = torch.stack([-self.task.loss(y, batch.target) for y in responses], 1)  # (B, M)
            self.coefficients = self.compare(*mean_over_rows(scores, batch.available))
        return {"task": self.task.loss(self.fuse(features, batch.available), batch.target).mean()}

    def responses(self, features: Mapping[str, Features], available: Tensor) -> Tensor:
        """Each modality's own response, (M, B, C, ...); what is not available responds with 0."""
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
        """Observe the scores (M,) of a batch; the coefficients (M,), 1 for a modality not seen."""
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
