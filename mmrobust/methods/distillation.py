"""Distillation from a teacher that sees all modalities to a student trained with modality dropout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrobust import losses
from mmrobust.batch import Batch
from mmrobust.errors import UserError
from mmrobust.methods.base import Method, Output
from mmrobust.methods.teacher import Teacher
from mmrobust.models.pyramid import deepest

# Losses that compare fused features.
FEATURES = {
    "fitnet": losses.hint,
    "at": losses.attention_transfer,
    "sp": losses.similarity_preserving,
    "pkt": losses.probabilistic_knowledge_transfer,
    "dad": losses.similarity_distillation,
}
KINDS = (*FEATURES, "soft_targets", "logits")


class Distillation(Method):
    """Modality dropout with a teacher that sees all modalities: the distillation baselines of MMANet's tables.

    The losses compare fused features; in a pyramid, the deepest map. For classification, whose features have no
    places, attention transfer compares the magnitudes of all entries. Under DDP, SP, PKT and DAD compare the rows of
    one rank.

    Args:
        teacher: `run` is the folder of a complete run; without it, a run trains `teacher.method` first. A
            method object without a run distils nothing.
        kind: fitnet (Romero et al., 2015), at (Zagoruyko & Komodakis, 2017), sp (Tung & Mori, 2019), pkt
            (Passalis & Tefas, 2018), dad (cosine similarity matrices), soft_targets (Hinton et al., 2015), logits
            (Ba & Caruana, 2014).
        weight: weight of the distillation term.
        temperature: temperature of soft_targets.

    Raises:
        UserError: the kind is unknown, or the teacher does not fit the data.
    """

    def __init__(
        self, *, teacher: Mapping[str, Any], kind: str, weight: float, temperature: float, **base: Any
    ) -> None:
        super().__init__(**base)
        if kind not in KINDS:
            raise UserError(f"method.kind={kind!r} is not known; choose one of {', '.join(KINDS)}")
        if temperature <= 0:
            raise UserError(f"method.temperature={temperature} is not above 0; the published default is 2")
        self.teacher = Teacher(teacher["run"], self.spec) if teacher["run"] else None
        self.kind, self.weight, self.temperature = kind, weight, temperature

    def start(self) -> None:
        if self.teacher and self.kind in FEATURES:
            same = self.kind in ("fitnet", "at") and (
                self.kind == "fitnet" or self.spec.task == "classification"
            )
            self.teacher.require_fused(self.width if same else None)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        output = self.fuse(self.encode(batch), self.draw(batch))
        task = self.task.loss(output, batch.target).mean()
        if self.teacher is None:
            return {"task": task}
        return {"task": task, "distillation": self.weight * self._distil(output, self.teacher(batch))}

    def _distil(self, student: Output, teacher: Output) -> Tensor:
        if self.kind == "soft_targets":
            return losses.soft_targets(student.logits, teacher.logits, temperature=self.temperature)
        if self.kind == "logits":
            return losses.logit_distillation(student.logits, teacher.logits)
        assert student.fused is not None
        assert teacher.fused is not None
        return FEATURES[self.kind](deepest(student.fused), deepest(teacher.fused))
