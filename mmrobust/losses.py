"""Published losses as pure functions of tensors."""

from __future__ import annotations

from torch import Tensor


def gaussian_kl(mean: Tensor, log_variance: Tensor, *, prior_variance: float | Tensor = 1.0) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, prior_variance)), summed over dimensions, averaged over the batch.

    Args:
        mean: (B, D) or (B, D, ...): a map's places are further samples, as in DMRNet's segmentation code.
        log_variance: the same shape.
        prior_variance: broadcasts over `mean`.

    Source: DMRNet (Wei et al., ECCV 2024), its KL term.
    """
    prior = mean.new_tensor(prior_variance) if isinstance(prior_variance, float | int) else prior_variance
    terms = (log_variance.exp() + mean**2) / prior - log_variance + prior.log() - 1
    return 0.5 * terms.sum(1).mean()
