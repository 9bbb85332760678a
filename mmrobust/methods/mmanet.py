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
    """Behaviour of the released classification code, one switch for each quirk; all off is the method as described.

    Args:
        column_weights: the margin weighs columns of the similarity matrices instead of rows.
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

    The deployment network is plain fusion with modality dropout. A teacher of all modalities hands on how it
    relates the samples of a batch, above all those near its decision boundary. A regularisation network, unused at
    inference, shares the encoders and predicts samples with a weak combination a second time; which are weak is
    mined on the validation split at the end of the warm-up. Regularisation begins after it, and so does distillation
    if nothing else is said.

    Relations are taken of the fused feature: for classification of the whole of it, a map (`fusion=trunk`, as
    published) before it is averaged; for segmentation of every place, of the deepest map and the next two levels (as
    fused; released: as projected for the decoder), added up. The regularisation network is a second fusion (of the
    trunk: layers of its own) and head, in segmentation a second decoder. Relations couple the rows of one rank.

    Args:
        teacher: `run`, the folder of a complete run, or None; then `method` is trained first. A method built
            without a run distils nothing.
        distillation_weight: alpha.
        regularization_weight: beta.
        distillation_from: first epoch with distillation; None: `warm_up`.
        warm_up: epochs before the regularisation.
        mining_epochs: the last epochs of the warm-up, whose validation results are mined.
        mining: distance of predictions, see `PredictionMining`: `histogram`, `metric`, or `conditional`, which is of
            use where classes are balanced; None: histogram for classification and metric for segmentation, as
            published.
        weak: combinations to regularise instead of mined ones, e.g. [audio].
        max_places: (height, width) to which larger maps are pooled before they are related.
        chunk: rows of the similarity matrices computed at a time.
        as_released: see `AsReleased`.

    Raises:
        UserError: one modality, unknown values, a teacher that does not fit; at the start, no validation to mine.
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
        # the regularisation network: encoders are shared, and in segmentation the fusion, too
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
