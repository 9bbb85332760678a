"""MMANet: margin-aware distillation and modality-aware regularisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.combinations import combination_code
from mmrobust.errors import UserError
from mmrobust.evaluation.combinations import Results
from mmrobust.methods.base import Method, Output, mean_over_available
from mmrobust.methods.parts.mining import PredictionMining
from mmrobust.methods.parts.relations import distil_relations
from mmrobust.methods.teacher import Teacher


@dataclass(frozen=True)
class AsReleased:
    """Deviations of the released classification code from the paper, one switch each; all off follows the paper.

    Args:
        column_weights: the margin weights the columns of the similarity matrices instead of the rows.
        softmax_histograms: mining compares softmaxes of the histograms of predicted classes.
        unmasked_regularization: the term is the number of weak samples times the mean loss of *all* samples: a
            broadcast of (B,) with (B, 1, 1, 1). The published weights of the regularisation (0.5 for
            classification, 0.01 for audio and video) belong to this form.
    """

    column_weights: bool
    softmax_histograms: bool
    unmasked_regularization: bool


class MMANet(Method):
    """Margin-aware distillation and modality-aware regularisation (Wei et al., CVPR 2023, arXiv 2304.08028).

    The deployment network is plain fusion with modality dropout. A teacher that sees all modalities distils the
    similarities between the samples of a batch; samples near its decision boundary weigh most. A regularisation
    network, unused at inference, shares the encoders and predicts samples with a weak combination a second time. The
    weak combinations are mined from the validation results at the end of the warm-up. The regularisation starts after
    the warm-up; so does the distillation, unless `distillation_from` sets another epoch.

    Similarities compare fused features. Classification compares whole features; maps (`fusion=trunk`, as published)
    are compared before averaging. Segmentation compares all places of the deepest map and of the next two levels, and
    adds the three terms (the released code compares the levels after the decoder's projections). The regularisation
    network has its own fusion (of a trunk: its own layers) and head; in segmentation, its own decoder only. Under
    DDP, similarities compare the rows of one rank.

    Args:
        teacher: `run` is the folder of a complete run; without it, a run trains `teacher.method` first. A
            method object without a run distils nothing.
        distillation_weight: alpha.
        regularization_weight: beta.
        distillation_from: first epoch with distillation; None: `warm_up`.
        warm_up: number of epochs before the regularisation.
        mining_epochs: number of epochs, the last of the warm-up, whose validation results are mined.
        mining: distance of predictions, see `PredictionMining`: `histogram`, `metric`, or `conditional`, which suits
            balanced classes; None: histogram for classification and metric for segmentation, as published.
        weak: combinations to regularise instead of mined ones, e.g. [audio].
        max_places: (height, width) to which larger maps are pooled before the comparison.
        chunk: number of rows of the similarity matrices to compute at a time.
        as_released: see `AsReleased`.

    Raises:
        UserError: there is one modality only, a value is unknown, the teacher does not fit the data, or (at the start
            of training) no validation results can be mined.
    """

    def __init__(
        self,
        *,
        teacher: Mapping[str, Any],
        distillation_weight: float,
        regularization_weight: float,
        distillation_from: int | None,
        warm_up: int,
        mining_epochs: int,
        mining: str | None,
        weak: Sequence[str] | None,
        max_places: Sequence[int],
        chunk: int | None,
        as_released: Mapping[str, bool],
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if not 1 <= mining_epochs <= warm_up and weak is None:
            raise UserError(
                f"method.mining_epochs={mining_epochs} are the last of the method.warm_up={warm_up} epochs; choose "
                "1 to warm_up, or name the combinations with method.weak"
            )
        self.teacher = Teacher(teacher["run"], self.spec) if teacher["run"] else None
        self.distillation_weight, self.regularization_weight = distillation_weight, regularization_weight
        self.warm_up, self.max_places, self.chunk = warm_up, tuple(max_places), chunk
        self.distillation_from = warm_up if distillation_from is None else distillation_from
        self.as_released = AsReleased(**as_released)
        # The regularisation network shares the encoders and, in segmentation, the fusion.
        self.regularizer = self.new_fusion() if self.spec.task == "classification" else None
        self.regularizer_head = self.task.head(self.width)
        self.mining = PredictionMining(
            self.modalities,
            first=warm_up - mining_epochs,
            epochs=mining_epochs,
            weak=weak,
            distance=mining or ("metric" if self.spec.task == "segmentation" else "histogram"),
            softmax=self.as_released.softmax_histograms,
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        drawn, features = self.draw(batch), self.encode(batch)
        output = self.fuse(features, drawn)
        started = self.current_epoch >= self.warm_up
        fused = self.regularizer(features, drawn) if self.regularizer else output.fused
        again = self.task.loss(self.regularizer_head(self.task.pool(fused)), batch.target)  # (B,)
        weak = self.mining.weak[combination_code(drawn)] & started  # (B,)
        masked, unmasked = mean_over_available(again, weak), weak.sum() * again.mean()
        regularization = unmasked if self.as_released.unmasked_regularization else masked
        distils = self.teacher and self.current_epoch >= self.distillation_from
        mad = self._distil(output, self.teacher(batch)) if self.teacher and distils else again.new_zeros(())
        return {
            "task": self.task.loss(output, batch.target).mean(),
            "distillation": self.distillation_weight * mad,
            "regularization": self.regularization_weight * regularization,
        }

    def _distil(self, student: Output, teacher: Output) -> Tensor:
        axis = "column" if self.as_released.column_weights else "row"
        most = self.max_places if self.task.dense else None
        return distil_relations(student, teacher, axis=axis, most=most, chunk=self.chunk)

    @property
    def selectable_from(self) -> int:
        distilled = self.distillation_from if self.teacher and self.distillation_weight else 0
        return max(distilled, self.warm_up if self.regularization_weight else 0)

    def start(self) -> None:
        if self.teacher:
            self.teacher.require_fused()
        self.mining.require_validation(self.trainer)

    def observe(self, results: Results) -> None:
        self.mining.observe(results, self.current_epoch)
