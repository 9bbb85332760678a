"""Scores of a method's splits, and the thresholds that validation fixes for the test."""

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
    """The part of a method that `Evaluation` uses."""

    metrics: Mapping[str, Added]
    evaluates: int | None

    def combinations(self) -> Sequence[Sequence[str]]: ...


class Evaluation:
    """A method's scores on its splits. Buffers of the method hold the thresholds that validation fixes for the test, so
    that a checkpoint keeps them together with the weights.

    Args:
        owner: the method that receives the buffers, one entry per combination and one for "as available"; the entries
            are nan until validation fills them.
        families: names of the metric families with thresholds, see `tasks.families`.
        modalities: the M modality names.
    """

    def __init__(self, owner: nn.Module, families: Sequence[str], modalities: Sequence[str]) -> None:
        self.families, self.modalities = tuple(families), tuple(modalities)
        self.scores: dict[str, CombinationScores] = {}
        for name in self.families:
            nothing = torch.full((2 ** len(self.modalities),), torch.nan, dtype=torch.float64)
            owner.register_buffer(THRESHOLD + name, nothing)

    def update(self, split: str, method: Serves, batch: Batch) -> None:
        """Count a batch in every combination that the method serves."""
        # Created at the first batch, because combinations() may use attributes that a constructor sets last.
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
        """Compute the results over all ranks; the test uses the thresholds that validation fixed."""
        return self.scores[split].finish(self.fixed(owner) if split == "test" else None)

    def fixed(self, owner: nn.Module) -> dict[str, np.ndarray]:
        """The fixed thresholds, (2^M,) per family; nan where none is fixed."""
        return {name: owner.get_buffer(THRESHOLD + name).cpu().numpy() for name in self.families}

    def fix(self, owner: nn.Module, found: Mapping[str, np.ndarray]) -> None:
        """Store the thresholds found on the validation split."""
        for name, values in found.items():
            owner.get_buffer(THRESHOLD + name).copy_(torch.from_numpy(values))
