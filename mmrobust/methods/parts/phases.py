"""Stages of a training, in which other losses act: OSMD's controls."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from mmrobust.errors import UserError, one_of

TEACHER, TRANSFER, FUSION = {"branch"}, {"restored", "adaptation"}, {"task", "translation"}

# The names of the terms that act in each stage.
STAGES = {
    "one": (TEACHER | TRANSFER | FUSION,),
    "teacher_first": (TEACHER, TRANSFER | FUSION),
    "sequential": (TEACHER, TRANSFER, FUSION),
}


class Phases:
    """Which terms act when.

    Args:
        stages: a key of STAGES.
        lengths: epochs of the stages but the last; what is too many is not needed.
        ramp_epochs: over which the adaptation is raised from 0 when it begins to act.
    """

    def __init__(self, stages: str, lengths: tuple[int, ...], ramp_epochs: int) -> None:
        one_of("method.stages", stages, tuple(STAGES))
        self.terms, self.ramp_epochs = STAGES[stages], ramp_epochs
        lengths = lengths[: len(self.terms) - 1]
        if min(lengths, default=1) < 1:
            raise UserError(
                f"method.stages={stages} with stages of {', '.join(map(str, lengths))} epochs, expected at least 1 epoch "
                "each: method.teacher_epochs and method.transfer_epochs"
            )
        self.begins = [sum(lengths[:i]) for i in range(len(self.terms))]

    def stage(self, epoch: int) -> int:
        """Which one, from 0."""
        return sum(begin <= epoch for begin in self.begins) - 1

    def acts(self, term: str, epoch: int) -> bool:
        return term in self.terms[self.stage(epoch)]

    def resting(self, groups: Mapping[str, list[nn.Module]], epoch: int) -> list[nn.Module]:
        """Of what learns by each term, what does not learn now."""
        return [part for term, parts in groups.items() if not self.acts(term, epoch) for part in parts]

    def ramp(self, epoch: int) -> float:
        """The adaptation's share, from 0 to 1."""
        begun = epoch - self.first("adaptation")
        return min(1.0, max(begun, 0) / self.ramp_epochs) if self.ramp_epochs else 1.0

    @property
    def all_begun(self) -> int:
        """The first epoch in which all stages have begun, and the ramp."""
        return max(self.begins[-1], self.first("adaptation") + min(1, self.ramp_epochs))

    def first(self, term: str) -> int:
        """The epoch in which a term begins to act."""
        return next(begin for begin, terms in zip(self.begins, self.terms, strict=True) if term in terms)
