"""Regression: one or several numbers per sample."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mmrobust.data.spec import DataSpec
from mmrobust.tasks.base import Counts, Predicted, Task, full_logits

# A variance below this share of the mean square is rounding error.
CONSTANT = 1e-12


class Regression(Task):
    """D numbers per sample (`spec.num_classes`). Targets and predictions are (B, D) float32 in the dataset's units.

    The logits are standardised predictions, with mean 0 and standard deviation 1 over the training split. The mean of
    several networks' logits is therefore the mean of their predictions.
    """

    metrics: ClassVar[tuple[str, ...]] = ("mae", "rmse", "pearson", "ccc")
    kept_as: ClassVar[str] = "predicted"
    primary = "mae"

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.mean = torch.tensor(spec.target_mean or [0.0] * spec.num_classes)
        self.std = torch.tensor(spec.target_std or [1.0] * spec.num_classes)

    def loss(self, prediction: Tensor | Predicted, target: Tensor) -> Tensor:
        """Squared error of every sample in standardised units, averaged over the numbers, (B,)."""
        logits = full_logits(prediction)
        mean, std = self.mean.to(target.device), self.std.to(target.device)
        return (logits - (target - mean) / std).square().mean(1)

    def predict(self, logits: Tensor, target: Tensor, label_size: Tensor | None) -> Tensor:
        """Logits (K, B, D) in the dataset's units, (K, B, D)."""
        return logits.float() * self.std.to(logits.device) + self.mean.to(logits.device)

    def pairs(self, logits: Tensor, target: Tensor, label_size: Tensor | None) -> tuple[Tensor, Tensor]:
        """Predictions and targets, (N, D) each, or (N,) if D = 1."""
        predicted = self.predict(logits, target, label_size)
        return (predicted[:, 0], target[:, 0]) if self.num_classes == 1 else (predicted, target)

    def zeros(self, rows: int) -> Counts:
        """`sums` (rows, D, 8) float64 of 1, |p - t|, (p - t)^2, p, t, p^2, t^2 and p t; p predictions, t targets."""
        return {"sums": torch.zeros(rows, self.num_classes, 8, dtype=torch.float64)}

    def count(self, logits: Tensor, predicted: Tensor, target: Tensor, counted: Tensor) -> Counts:
        p, t = predicted.double(), target.double().expand_as(predicted)
        error = p - t
        values = torch.stack(
            [torch.ones_like(p), error.abs(), error.square(), p, t, p.square(), t.square(), p * t], -1
        )
        return {"sums": torch.where(counted[..., None, None], values, 0).sum(1)}

    def measure(self, counts: Counts) -> dict[str, Tensor]:
        """Mean absolute error, root mean square error, Pearson's correlation and concordance correlation (Lin,
        Biometrics 45, 1989), each averaged over the numbers; nan if undefined for one of them."""
        return {name: values.mean(1) for name, values in regression_metrics(counts["sums"]).items()}

    def kept(self, logits: Tensor, predicted: Tensor, target: Tensor) -> Tensor:
        return predicted

    def count_kept(self, kept: Tensor, target: Tensor | None, counted: Tensor) -> Counts:
        assert target is not None
        return self.count(kept, kept, target, counted)

    def example(self, size: int, generator: torch.Generator) -> Tensor:
        return torch.randn(size, self.num_classes, generator=generator) * self.std + self.mean

    def check_target(self, target: Tensor) -> None:
        assert target.dtype == torch.float32, f"targets are {target.dtype}, not float32"
        assert target.shape == (self.num_classes,), f"targets have shape {tuple(target.shape)}"
        assert target.isfinite().all(), "a target is not finite"


def regression_metrics(sums: Tensor) -> dict[str, Tensor]:
    """Compute the metrics, each (...), from sums (..., 8), see `Regression.zeros`."""
    n = sums[..., 0]
    absolute, square, p, t, pp, tt, pt = (sums[..., 1:] / n[..., None]).unbind(-1)  # means; nan if n = 0
    var_p, var_t = _variance(p, pp), _variance(t, tt)
    covariance = pt - p * t
    return {
        "mae": absolute,
        "rmse": square.sqrt(),
        "pearson": torch.where(var_p * var_t > 0, covariance / (var_p * var_t).sqrt(), torch.nan),
        "ccc": 2 * covariance / (var_p + var_t + (p - t).square()),
    }


def _variance(mean: Tensor, square: Tensor) -> Tensor:
    """Variance from a mean and a mean square. Rounding errors become 0, so that a constant's correlation is nan."""
    variance = square - mean.square()
    return torch.where(variance > CONSTANT * square, variance, 0)
