"""UDML: fusion weights from estimated noise and measured reliance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from mmrobust.batch import Batch
from mmrobust.errors import UserError, one_of
from mmrobust.losses import gaussian_kl, inverse_variance_weights
from mmrobust.methods.base import Features, Method, Output, Prediction, mean_over_available
from mmrobust.methods.parts.gaussian import NormalisedLinear, sample_gaussian
from mmrobust.methods.parts.uncertainty import NoiseEstimator, Reliance
from mmrobust.models.fusion import rows_like
from mmrobust.models.pyramid import deepest, with_deepest

MAX_LEVEL = 11  # pure noise


@dataclass(frozen=True)
class AsReleased:
    """Behaviour of the released code, one switch for each quirk; all off is the method as described.

    Args:
        regress_std: the second version regresses 1 + softplus(u), which cannot reach the clean level 0.
    """

    regress_std: bool


class UDML(Method):
    """Unbiased dynamic multimodal fusion (Wei et al., CVPR 2026 Findings, arXiv 2603.19681).

    A modality is a map of Gaussians, sampled in training, the mean in inference. From their standard deviations
    an estimator, trained on controlled noise, tells the noise level; a modality counts more the less noisy it is
    and the less the prediction rests on it anyway, so that one that is hard to learn is not suppressed twice.
    Encoders see clean data first, then noise, then the weights.

    Read from the released code, the paper's text not being at hand: reliance divides from the first step on,
    lagging one batch; evaluation always weighs by the estimated noise. Absence is not published: the weights
    of what is there sum to its number. A video is one map, the mean over its frames. Of a pyramid the deepest map is
    Gaussian; weights scale all levels.

    Args:
        unimodal_weight: of the losses of the unimodal paths: the same fusion and head, other features hidden.
        kl_weight: of the KL divergences, summed over modalities, channels and places.
        noise_weight: of the noise regression; it never reaches an encoder.
        clean_level: what the regression learns where `Batch.noise_level` is 0.
        prior: variance of the prior: 1 (`unit`) or the noise level (`level`).
        epochs: of the whole training.
        weights_from: share of the epochs after which the estimated noise enters the weights in training.
        uncertainty: the weights' standard deviations: of the `estimator`, the root of the mean predicted
            `variance` (detached), or `none`: 1 for all.
        weight_rule: see `inverse_variance_weights`.
        apply: a weight w makes z (1 + w) z (`residual`) or w z (`plain`).
        detach_weights: without it, the task's loss trains the estimator as well.
        max_std: bound of the predicted standard deviations; null is none.
        estimator: see `NoiseEstimator`.
        reliance: see `Reliance`; the warm-up ends with `weights_from`.
        as_released: see `AsReleased`.

    Raises:
        UserError: a value that is not known; a prior of variance 0; noise levels out of [0, 11] in training.
    """

    def __init__(
        self,
        *,
        unimodal_weight: float,
        kl_weight: float,
        noise_weight: float,
        clean_level: float,
        prior: str,
        epochs: int,
        weights_from: float,
        uncertainty: str,
        weight_rule: str,
        apply: str,
        detach_weights: bool,
        max_std: float | None,
        estimator: Mapping[str, Any],
        reliance: Mapping[str, Any],
        as_released: Mapping[str, bool],
        **base: Any,
    ) -> None:
        super().__init__(**base)
        one_of("method.prior", prior, ("unit", "level"))
        one_of("method.uncertainty", uncertainty, ("estimator", "variance", "none"))
        one_of("method.weight_rule", weight_rule, ("inverse_variance", "cross_sum"))
        one_of("method.apply", apply, ("residual", "plain"))
        if prior == "level" and clean_level <= 0:
            raise UserError("method.prior=level needs a variance for clean inputs: set method.clean_level=1")
        if epochs < 1:
            raise UserError(f"method.epochs={epochs}, but weights_from is a share of them: set a number")
        self.unimodal_weight, self.kl_weight, self.noise_weight = unimodal_weight, kl_weight, noise_weight
        self.clean_level, self.prior, self.uncertainty = clean_level, prior, uncertainty
        self.weight_rule, self.added, self.detach_weights = (
            weight_rule,
            float(apply == "residual"),
            detach_weights,
        )
        self.max_std, self.first_weighted = max_std, weights_from * epochs
        self.as_released = AsReleased(**as_released)
        self.mean = nn.ModuleDict({m: NormalisedLinear(d) for m, d in self.widths.items()})
        self.log_variance = nn.ModuleDict({m: NormalisedLinear(d) for m, d in self.widths.items()})
        self.estimators = nn.ModuleDict({m: NoiseEstimator(d, **estimator) for m, d in self.widths.items()})
        self.reliance = Reliance(len(self.modalities), **reliance)

    def encode_modality(self, modality: str, x: Tensor) -> Features:
        h = self.encoders[modality](x)  # (R, D, ...)
        mean, log_variance = self.mean[modality](deepest(h)), self.log_variance[modality](deepest(h))
        if self.max_std is not None:
            log_variance = log_variance.clamp(max=2 * math.log(self.max_std))
        level, std = self.estimators[modality]((0.5 * log_variance).exp())  # (R,)
        if self.uncertainty == "variance":
            std = log_variance.detach().exp().flatten(1).mean(1).sqrt()
        if not self.training:
            return {"z": self.pool(with_deepest(h, mean)), "level": level, "std": std}
        z = self.pool(with_deepest(h, sample_gaussian(mean, log_variance)))
        gaussian = {"mean": mean.flatten(1), "log_variance": log_variance.flatten(1)}
        return {"z": z, "level": level, "std": std, **gaussian}

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        warmup = self.training and self.current_epoch < self.first_weighted
        std = column(features, "std")  # (B, M)
        if warmup or self.uncertainty == "none":
            std = torch.ones_like(std)
        weights = inverse_variance_weights(
            std, self.reliance.divisor(warmup), available, rule=self.weight_rule
        )
        factors = (weights.detach() if self.detach_weights else weights) + self.added
        weighed = {m: scale(f["z"], factors[:, i]) for i, (m, f) in enumerate(features.items())}
        fused = self.fusion(weighed, available)
        return Output(self.head(fused), fused=fused, extras={"weights": weights, "weighed": weighed})

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        features, available = self.encode(batch), batch.available
        output = self.fuse(features, available)

        # From features weighed by all that is available.
        def predict(seen: Tensor) -> Prediction:
            return self.head(self.fusion(output.extras["weighed"], seen))

        only = torch.eye(len(features), dtype=torch.bool, device=available.device).unsqueeze(1)  # (M, 1, M)
        alone = [predict(mask.expand_as(available)) for mask in only]
        self.reliance.observe(
            output.logits, [y.logits for y in alone], lambda seen: predict(seen).logits, available
        )
        unimodal = torch.stack([self.task.loss(y, batch.target) for y in alone], 1)  # (B, M)
        label = torch.where(batch.noise_level > 0, batch.noise_level, self.clean_level)
        error = column(features, "std" if self.as_released.regress_std else "level") - label
        # `encode` leaves zeros where a modality is absent: there a standard normal meets a prior that is one, too.
        prior = torch.where(available, label, 1) if self.prior == "level" else torch.ones_like(label)
        kl = [
            gaussian_kl(f["mean"], f["log_variance"], prior_variance=prior[:, i, None])
            for i, f in enumerate(features.values())
        ]
        return {
            "task": self.task.loss(output, batch.target).mean(),
            "unimodal": self.unimodal_weight * mean_over_available(unimodal, available).sum(),
            "kl": self.kl_weight * torch.stack(kl).sum(),
            "noise": self.noise_weight * mean_over_available(error**2, available).sum(),
        }

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.training and not ((batch.noise_level >= 0) & (batch.noise_level <= MAX_LEVEL)).all():
            low, high = batch.noise_level.min().item(), batch.noise_level.max().item()
            raise UserError(
                f"noise levels from {low:g} to {high:g}, expected 0 (clean) to {MAX_LEVEL}; see noise.train"
            )
        return batch


def scale(features: Any, factors: Tensor) -> Any:
    """Features of B rows times one factor (B,) for each, at all levels."""
    return apply_to_collection(features, Tensor, lambda x: x * rows_like(factors, x))


def column(features: Mapping[str, Features], name: str) -> Tensor:
    """What every modality has one number a row of, (B, M)."""
    return torch.stack([f[name] for f in features.values()], 1)
