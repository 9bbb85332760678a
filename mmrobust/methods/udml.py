"""UDML: fusion weights from estimated noise levels and measured reliance on each modality."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust.batch import Batch
from mmrobust.errors import UserError, one_of
from mmrobust.methods.base import Features, Method, Output, Prediction, mean_over_available
from mmrobust.methods.parts.gaussian import NormalisedLinear, sample_gaussian
from mmrobust.methods.parts.uncertainty import (
    NoiseEstimator,
    Reliance,
    Weighing,
    check_levels,
    column,
    noise_kl,
)
from mmrobust.models.encoders import keep_frames
from mmrobust.models.pyramid import deepest, with_deepest


@dataclass(frozen=True)
class AsReleased:
    """Deviations of the released code from the paper, one switch each; all off follows the paper.

    Args:
        regress_std: regress 1 + softplus(u), as the second version does, which cannot reach the clean level 0.
    """

    regress_std: bool


class UDML(Method):
    """Unbiased dynamic multimodal fusion (Wei et al., CVPR 2026 Findings, arXiv 2603.19681).

    Each modality's features are Gaussians; training samples them, inference takes their means. An estimator, trained
    on controlled noise, regresses the noise level from their standard deviations. Less noise and less reliance of the
    prediction on a modality raise its weight. Training begins on clean data, then adds noise, then the weights.

    The released code shows: reliance, one batch old, divides from the first step on; evaluation always uses the
    estimated noise; every frame of a video has its own Gaussians, whose samples are averaged. The paper has no absent
    modalities; here the weights of the available ones sum to their number. In a pyramid, the deepest map is Gaussian.

    Args:
        unimodal_weight: weight of the unimodal losses: the same fusion and head with the other features hidden.
        kl_weight, noise_weight: weights of the KL divergences, summed over modalities, channels and places, and of the
            noise regression, which sends no gradient to an encoder.
        clean_level: regression target where `Batch.noise_level` is 0.
        prior: variance of the prior: 1 (`unit`) or the noise level (`level`).
        epochs, weights_from: length of the training; share of it after which the noise enters the weights.
        uncertainty, weight_rule, apply, detach_weights: see `Weighing`.
        max_std: upper bound of the predicted standard deviations; null: no bound.
        estimator, reliance, as_released: see `NoiseEstimator`, `Reliance` (whose warm-up ends with `weights_from`) and
            `AsReleased`.
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
        keep_frames(self.encoders)
        one_of("method.prior", prior, ("unit", "level"))
        if prior == "level" and clean_level <= 0:
            raise UserError("method.prior=level needs a variance for clean inputs: set method.clean_level=1")
        if epochs < 1:
            raise UserError(f"method.epochs={epochs}, but weights_from is a share of them: set a number")
        self.unimodal_weight, self.kl_weight, self.noise_weight = unimodal_weight, kl_weight, noise_weight
        self.clean_level, self.prior, self.max_std = clean_level, prior, max_std
        self.weighing = Weighing(uncertainty, weight_rule, apply, detach_weights)
        self.epochs, self.first_weighted = epochs, weights_from * epochs
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
        std = self.weighing.std(std, log_variance)
        if not self.training:
            return {"z": self.pool(with_deepest(h, mean)), "level": level, "std": std}
        z = self.pool(with_deepest(h, sample_gaussian(mean, log_variance)))
        gaussian = {"mean": mean.flatten(1), "log_variance": log_variance.flatten(1)}
        return {"z": z, "level": level, "std": std, **gaussian}

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        warmup = self.training and self.current_epoch < self.first_weighted
        weights, weighed = self.weighing(features, self.reliance.divisor(warmup), available, warmup=warmup)
        fused = self.fusion(weighed, available)
        return Output(self.predict(fused), fused=fused, extras={"weights": weights, "weighed": weighed})

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        features, available = self.encode(batch), batch.available
        output = self.fuse(features, available)

        # The weights depend on all available modalities, also where `seen` hides some.
        def predict(seen: Tensor) -> Prediction:
            return self.predict(self.fusion(output.extras["weighed"], seen))

        only = torch.eye(len(features), dtype=torch.bool, device=available.device).unsqueeze(1)  # (M, 1, M)
        alone = [predict(mask.expand_as(available)) for mask in only]
        self.reliance.observe(output.logits, [y.logits for y in alone], predict, available)
        unimodal = torch.stack([self.task.loss(y, batch.target) for y in alone], 1)  # (B, M)
        label = torch.where(batch.noise_level > 0, batch.noise_level, self.clean_level)
        error = column(features, "std" if self.as_released.regress_std else "level") - label
        kl = noise_kl(features, label if self.prior == "level" else None, available)
        return {
            "task": self.task.loss(output, batch.target).mean(),
            "unimodal": self.unimodal_weight * mean_over_available(unimodal, available).sum(),
            "kl": self.kl_weight * kl,
            "noise": self.noise_weight * mean_over_available(error**2, available).sum(),
        }

    @property
    def selectable_from(self) -> int:
        """Second epoch of the noisy half: the released code does not select the first one."""
        return self.epochs // 2 + 1

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.training:
            check_levels(batch.noise_level)
        return batch
