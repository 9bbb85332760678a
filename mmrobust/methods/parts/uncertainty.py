"""How noisy a modality is, and how much a network relies on it (UDML)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrobust import ranks
from mmrobust.errors import UserError, one_of

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
        predict: Callable[[Tensor], Tensor],
        available: Tensor,
    ) -> None:
        """Take in a batch; a modality that no row counts for keeps its value.

        Args:
            logits: (B, C, ...) from all that is available.
            alone: the same from each modality alone.
            predict: (B, M) bool, what is seen, to logits.
            available: (B, M) bool.
        """
        counted, changes = available, list(alone)
        if self.measure == "drop_diff":
            counted = available & (available.sum(1, keepdim=True) > 1)
            seen = ~torch.eye(len(alone), dtype=torch.bool, device=available.device)
            changes = [logits - predict(available & mask) for mask in seen]
        norms = [
            c.float().abs().sum(1, keepdim=True).flatten(1).mean(1) for c in changes
        ]  # the mean over places
        mean = ranks.mean_of(torch.stack(norms, 1), counted)
        self.value.copy_(torch.where(mean > 0, torch.lerp(mean, self.value, self.ema), self.value))
