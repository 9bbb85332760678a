"""DMRNet: decoupled multimodal representations and hard combination regularisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.errors import one_of
from mmrobust.losses import gaussian_kl
from mmrobust.methods.base import Features, Method, Output
from mmrobust.methods.parts.gaussian import NormalisedLinear, predict_from_mean, sample_gaussian
from mmrobust.methods.parts.mining import HardMining
from mmrobust.models.pyramid import deepest, with_deepest
from mmrobust.tasks.registry import TASKS


@dataclass(frozen=True)
class AsReleased:
    """Deviations of the released code from the paper, one switch each; all off follows the paper.

    Args:
        unmasked_hard: the hard term is the number of hard samples times the mean loss of *all* samples: a
            broadcast of (B,) with (B, 1, 1, 1). The published weights (0.2 on CREMA-D, 0.3 on
            Kinetics-Sounds, 0.7 on CASIA-SURF) belong to this form.
        batch_means: mining averages the means of batches, so a batch that lacks a modality distorts the result.
        detached_kl: the KL term is logged but has no gradient (the segmentation code).
    """

    unmasked_hard: bool
    batch_means: bool
    detached_kl: bool


class DMRNet(Method):
    """Decoupled multimodal representation network (Wei et al., ECCV 2024, arXiv 2407.04458).

    The network maps a modality combination to a diagonal Gaussian instead of a point. Training predicts from a sample
    of the Gaussian, inference from its mean, so the classifier no longer pulls all combinations of a class in one
    direction. Samples with a hard combination, mined by the predicted variance, count a second time.
    In a pyramid, the deepest map has one Gaussian per place, and the finer maps stay unchanged. Where a classifier
    fuses maps (`fusion=trunk`), every place has a Gaussian, and the samples are averaged over places.

    The published rule selects the wrong combinations. At the optimum of task and KL term sigma^2 = l / (l + H), where
    l is the KL term's weight and H the task's curvature, which grows with the uncertainty of the prediction. The
    *harder* combination thus has the smaller variance; measurements agree. `mining=loss` selects as intended.

    Args:
        kl_weight: weight of the KL divergence to a standard normal.
        hard_weight: weight of the hard combination regulariser.
        mining: criterion of hardness: the mean `variance` of a combination, as published, or its mean `loss`.
        mining_epochs: epochs that observe the criterion; the regulariser acts from then on.
        hard: combinations to regularise, after the same epochs, instead of mined ones, e.g. [audio].
        auxiliary: head of the regulariser: `shared` is the main head (as published for classification),
            `separate` a second one (as published for segmentation).
        max_log_variance: bound of |log variance|, which keeps the exponential stable.
        sample: false lets training, too, predict from the mean (an ablation).
        as_released: see `AsReleased`.
    """

    # The method uses the task's head and loss only, so it serves every task.
    tasks = tuple(TASKS)

    def __init__(
        self,
        *,
        kl_weight: float,
        hard_weight: float,
        mining: str,
        mining_epochs: int,
        hard: Sequence[str] | None,
        auxiliary: str,
        max_log_variance: float,
        sample: bool,
        as_released: Mapping[str, bool],
        **base: Any,
    ) -> None:
        super().__init__(**base)
        one_of("method.auxiliary", auxiliary, ("shared", "separate"))
        one_of("method.mining", mining, ("variance", "loss"))
        self.kl_weight, self.hard_weight, self.max_log_variance = kl_weight, hard_weight, max_log_variance
        self.sample, self.by_loss, self.as_released = sample, mining == "loss", AsReleased(**as_released)
        width, maps = self.width, self.task.dense
        self.mean = NormalisedLinear(width, maps=maps)
        self.log_variance = NormalisedLinear(width, maps=maps)
        self.auxiliary_head = self.head if auxiliary == "shared" else self.task.head(width)
        self.mining = HardMining(
            self.modalities, epochs=mining_epochs, hard=hard, batch_means=self.as_released.batch_means
        )

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        fused = self.fusion(features, available)
        if not self.training:
            return Output(predict_from_mean(self.mean, self.head, self.task.pool(fused)), fused=fused)
        mean = self.mean(deepest(fused))
        log_variance = self.log_variance(deepest(fused)).clamp(-self.max_log_variance, self.max_log_variance)
        z = with_deepest(fused, sample_gaussian(mean, log_variance) if self.sample else mean)
        return Output(self.predict(z), extras={"z": z, "mean": mean, "log_variance": log_variance})

    def uncertainty(self, output: Output) -> Tensor:
        """Mean variance of each row's Gaussian, (B,)."""
        assert output.fused is not None
        log_variance = self.log_variance(deepest(output.fused))
        return log_variance.clamp(-self.max_log_variance, self.max_log_variance).exp().flatten(1).mean(1)

    @property
    def selectable_from(self) -> int:
        return self.mining.epochs if self.hard_weight else 0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        drawn = self.draw(batch)  # (B, M), a subset of batch.available
        output = self.fuse(self.encode(batch), drawn)
        mean, log_variance, z = (output.extras[name] for name in ("mean", "log_variance", "z"))
        task = self.task.loss(output, batch.target)  # (B,)
        hardness = task if self.by_loss else log_variance.detach().exp().flatten(1).mean(1)
        hard = self.mining.update(drawn, hardness, self.current_epoch)  # (B,)
        shared = self.auxiliary_head is self.head
        again = task if shared else self.task.loss(self.auxiliary_head(self.task.pool(z)), batch.target)
        # The KL term of a classifier sums over all places: they form one Gaussian per sample.
        if not self.task.dense:
            mean, log_variance = mean.flatten(1), log_variance.flatten(1)
        kl = gaussian_kl(mean, log_variance)
        if self.as_released.unmasked_hard:
            regulariser = hard.sum() * again.mean()
        else:
            regulariser = (hard * again).mean()
        return {
            "task": task.mean(),
            "kl": self.kl_weight * (kl.detach() if self.as_released.detached_kl else kl),
            "hard": self.hard_weight * regulariser,
        }
