"""How noisy a modality is, and how much a network relies on it (UDML)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from mmrobust import ranks
from mmrobust.errors import UserError, one_of
from mmrobust.losses import gaussian_kl, inverse_variance_weights
from mmrobust.methods.output import Features
from mmrobust.models.fusion import rows_like
from mmrobust.models.heads import Prediction

MAX_LEVEL = 11  # pure noise
MAX_LOG_LEVEL = 10.0  # far above any level; the square of exp(10) is still finite in every precision but half


class NoiseEstimator(nn.Module):
    """The noise level of a modality from the standard deviations that its Gaussian predicts.

    Linear, dropout, Linear on the mean over all places. The input is detached, so that nothing learned here
    reaches an encoder; without an activation, as released, the whole is a linear map.

    Args:
        width: channels D of the map.
        activation: between the layers: `none` or `relu`.
        dropout: probability, between the layers.
        sigma: `exp`: exp(u / 2) is both the level and the standard deviation of the weights; `softplus`:
            softplus(u) is the level, 1 + softplus(u) the standard deviation.

    Source: UDML's released code; `exp` is its first version, `softplus` its second.
    """

    def __init__(self, width: int, *, activation: str, dropout: float, sigma: str) -> None:
        super().__init__()
        one_of("method.estimator.activation", activation, ("none", "relu"))
        one_of("method.estimator.sigma", sigma, ("exp", "softplus"))
        hidden = max(width // 2, 1)
        layers = (
            nn.Linear(width, hidden),
            nn.ReLU() if activation == "relu" else nn.Identity(),
            nn.Dropout(dropout),
        )
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, 1))
        self.sigma = sigma

    def forward(self, std: Tensor) -> tuple[Tensor, Tensor]:
        """(R, D, ...) predicted standard deviations to level and standard deviation, (R,) each."""
        u = self.layers(std.detach().flatten(2).mean(2) if std.dim() > 2 else std.detach()).squeeze(1)
        if self.sigma == "exp":
            level = (u / 2).clamp(max=MAX_LOG_LEVEL).exp()
            return level, level
        level = F.softplus(u)
        return level, 1 + level


class Reliance(nn.Module):
    """How much the prediction rests on each modality: a running mean, kept with the weights, agreed over ranks.

    Args:
        count: number of modalities M.
        use: false only measures it.
        measure: of a sample: the L1 norm of the logits from the modality alone (`l1_unimodal`, the released
            code), or of the change that hiding it makes (`drop_diff`, the paper; in rows that have others).
            With a linear head over concatenated features the two differ by the head's bias.
        ema: share of the old value that an update keeps; 0 is the last batch's alone, as released.
        init: (M,) what it starts from; null: 1 each.
        in_warmup: used from the first step on, or only with the estimated noise.
    """

    value: Tensor  # (M,)

    def __init__(
        self,
        count: int,
        *,
        use: bool,
        measure: str,
        ema: float,
        init: Sequence[float] | None,
        in_warmup: bool,
    ) -> None:
        super().__init__()
        one_of("method.reliance.measure", measure, ("l1_unimodal", "drop_diff"))
        init = [1.0] * count if init is None else list(init)
        if len(init) != count or min(init) <= 0:
            raise UserError(f"method.reliance.init={init}, expected {count} positive numbers, one a modality")
        if not 0 <= ema <= 1:
            raise UserError(f"method.reliance.ema={ema} is not in [0, 1]")
        self.use, self.measure, self.ema, self.in_warmup = use, measure, ema, in_warmup
        self.register_buffer("value", torch.tensor(init, dtype=torch.float32))

    def divisor(self, warmup: bool) -> Tensor:
        """What weights are divided by, (M,): 1 each where reliance is not used."""
        return self.value if self.use and (self.in_warmup or not warmup) else torch.ones_like(self.value)

    @torch.no_grad()
    def observe(
        self,
        logits: Tensor,
        alone: Sequence[Tensor],
        predict: Callable[[Tensor], Prediction],
        available: Tensor,
    ) -> None:
        """Take in a batch; a modality that no row counts for keeps its value.

        Args:
            logits: (B, C, ...) from all that is available.
            alone: the same from each modality alone.
            predict: what is said of what is seen, (B, M) bool.
            available: (B, M) bool.
        """
        counted, changes = available, list(alone)
        if self.measure == "drop_diff":
            counted = available & (available.sum(1, keepdim=True) > 1)
            seen = ~torch.eye(len(alone), dtype=torch.bool, device=available.device)
            changes = [logits - predict(available & mask).logits for mask in seen]
        norms = [
            c.float().abs().sum(1, keepdim=True).flatten(1).mean(1) for c in changes
        ]  # the mean over places
        mean = ranks.mean_of(torch.stack(norms, 1), counted)
        self.value.copy_(torch.where(mean > 0, torch.lerp(mean, self.value, self.ema), self.value))


@dataclass(frozen=True)
class Weighing:
    """How much each modality counts in the fusion.

    Args:
        uncertainty: the standard deviations that it follows: of the `estimator`, the root of the mean predicted
            `variance` (detached), or `none`: 1 for all.
        rule: see `inverse_variance_weights`.
        apply: a weight w makes z (1 + w) z (`residual`) or w z (`plain`).
        detach: without it, the task's loss trains the estimator as well.
    """

    uncertainty: str
    rule: str
    apply: str
    detach: bool

    def __post_init__(self) -> None:
        one_of("method.uncertainty", self.uncertainty, ("estimator", "variance", "none"))
        one_of("method.weight_rule", self.rule, ("inverse_variance", "cross_sum"))
        one_of("method.apply", self.apply, ("residual", "plain"))

    def std(self, estimated: Tensor, log_variance: Tensor) -> Tensor:
        """What a modality's weight will follow, (R,): as estimated (R,), or of its Gaussians (R, D, ...)."""
        if self.uncertainty != "variance":
            return estimated
        return log_variance.detach().exp().flatten(1).mean(1).sqrt()

    def __call__(
        self, features: Mapping[str, Features], divisor: Tensor, available: Tensor, *, warmup: bool
    ) -> tuple[Tensor, dict[str, Any]]:
        """Weights (B, M), and the features `z` as they count.

        Args:
            features: of every modality `z`, and `std` (B,), which a warm-up ignores.
            divisor: see `Reliance.divisor`.
            available: (B, M) bool.
        """
        std = column(features, "std")
        if warmup or self.uncertainty == "none":
            std = torch.ones_like(std)
        weights = inverse_variance_weights(std, divisor, available, rule=self.rule)
        factors = (weights.detach() if self.detach else weights) + float(self.apply == "residual")
        return weights, {m: scale(f["z"], factors[:, i]) for i, (m, f) in enumerate(features.items())}


def noise_kl(features: Mapping[str, Features], level: Tensor | None, available: Tensor) -> Tensor:
    """The KL divergence of each modality's Gaussians from a normal of variance 1, or `level` (B, M); their sum."""
    # `encode` leaves zeros where a modality is absent: there a standard normal meets a prior that is one, too.
    prior = (
        torch.ones_like(available, dtype=torch.float) if level is None else torch.where(available, level, 1)
    )
    kl = [
        gaussian_kl(f["mean"], f["log_variance"], prior_variance=prior[:, i, None])
        for i, f in enumerate(features.values())
    ]
    return torch.stack(kl).sum()


def check_levels(levels: Tensor) -> None:
    """Raises: UserError: noise levels of training are not in [0, 11]."""
    if not ((levels >= 0) & (levels <= MAX_LEVEL)).all():
        low, high = levels.min().item(), levels.max().item()
        raise UserError(
            f"noise levels from {low:g} to {high:g}, expected 0 (clean) to {MAX_LEVEL}; see noise.train"
        )


def scale(features: Any, factors: Tensor) -> Any:
    """Features of B rows times one factor (B,) for each, at all levels."""
    return apply_to_collection(features, Tensor, lambda x: x * rows_like(factors, x))


def column(features: Mapping[str, Features], name: str) -> Tensor:
    """What every modality has one number a row of, (B, M)."""
    return torch.stack([f[name] for f in features.values()], 1)
