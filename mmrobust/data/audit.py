"""Collects the problems with a dataset's files, so that one error reports them all."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmrobust.errors import Problems, UserError


@dataclass(frozen=True)
class Audit:
    """The problems found so far.

    Args:
        subject: the subject of the error, as the user wrote it: `data.root=...`.
        skip: true for data.corrupt=skip, which leaves damaged samples out later instead of stopping.
        samples: the word for samples in messages.
        problems: problems that make the dataset unusable.
        damaged: samples that lack a file.
    """

    subject: str
    skip: bool
    samples: str
    problems: Problems = field(default_factory=Problems)
    damaged: Problems = field(default_factory=Problems)

    def check(self) -> None:
        """Report the findings. Raises: UserError: there are problems, or damaged samples that `skip` does not cover."""
        if self.problems or (self.damaged and not self.skip):
            found = Problems([*self.problems, *self.damaged])
            if not self.problems:
                found[-1] += f"; or leave these {self.samples} out: data.corrupt=skip"
            raise UserError(f"{self.subject} cannot be used:\n{found.listed()}")
