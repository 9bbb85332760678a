"""What validation fixes for the test, beside the scores of a method's splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import nn

from mmrobust.batch import Batch
from mmrobust.combinations import combination_name, sample_combinations
from mmrobust.evaluation.added_metrics import Added
from mmrobust.evaluation.combinations import CombinationScores, Fuses, Results
from mmrobust.tasks.families import THRESHOLD


class Serves(Fuses, Protocol):
    """What is asked of a method beside what evaluation needs of each."""

    metrics: Mapping[str, Added]
    evaluates: int | None

    def combinations(self) -> Sequence[Sequence[str]]: ...


class Evaluation:
    """A method's scores on its splits. What validation fixes for the test is kept in buffers of the method, and so in a
    checkpoint with the weights that it belongs to.

    Args:
        owner: gets the buffers, nan until validation fills them: for all combinations and as available.
        families: names of the families of metrics that fix something, see `families`.
        modalities: M names.
    """

    def __init__(self, owner: nn.Module, families: Sequence[str], modalities: Sequence[str]) -> None:
        self.families, self.modalities = tuple(families), tuple(modalities)
        self.scores: dict[str, CombinationScores] = {}
        for name in self.families:
            nothing = torch.full((2 ** len(self.modalities),), torch.nan, dtype=torch.float64)
            owner.register_buffer(THRESHOLD + name, nothing)

    def update(self, split: str, method: Serves, batch: Batch) -> None:
        """Count a batch in every combination that the method serves."""
        # Not before: combinations() may need what a constructor sets last.
        if split not in self.scores:
            names = [combination_name(c) for c in sample_combinations(self.modalities, method.evaluates)]
            named = {*names}
            self.scores[split] = CombinationScores(
                method.task,
                self.modalities,
                [c for c in method.combinations() if combination_name(c) in named],
                names=names,
                keep_predictions=split == "test",
                metrics=method.metrics,
            )
        self.scores[split].update(method, batch)

    def finish(self, split: str, owner: nn.Module) -> Results:
        """Results over all ranks, the test's with what validation fixed."""
        return self.scores[split].finish(self.fixed(owner) if split == "test" else None)

    def fixed(self, owner: nn.Module) -> dict[str, np.ndarray]:
        """Of each family (2^M,), nan where nothing is fixed."""
        return {name: owner.get_buffer(THRESHOLD + name).cpu().numpy() for name in self.families}

    def fix(self, owner: nn.Module, found: Mapping[str, np.ndarray]) -> None:
        """Keep what a validation split found."""
        for name, values in found.items():
            owner.get_buffer(THRESHOLD + name).copy_(torch.from_numpy(values))
