"""What is wrong with the files of a dataset, collected so that it is said all at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmrobust.errors import Problems, UserError


@dataclass(frozen=True)
class Audit:
    """What was found so far.

    Args:
        subject: what cannot be used if anything was found, as the user wrote it: `data.root=...`.
        skip: damaged samples are left out later, data.corrupt=skip, and so are no reason to stop.
        samples: what they are called.
        problems: what makes the dataset unusable.
        damaged: samples that lack a file.
    """

    subject: str
    skip: bool
    samples: str
    problems: Problems = field(default_factory=Problems)
    damaged: Problems = field(default_factory=Problems)

    def check(self) -> None:
        """Raises: UserError: all that was found, if it is a reason to stop."""
        if self.problems or (self.damaged and not self.skip):
            found = Problems([*self.problems, *self.damaged])
            if not self.problems:
                found[-1] += f"; or leave these {self.samples} out: data.corrupt=skip"
            raise UserError(f"{self.subject} cannot be used:\n{found.listed()}")
