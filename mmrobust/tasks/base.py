"""The base class of all tasks: targets, heads, losses, predictions, and the counts from which metrics follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from mmrobust.data.spec import DataSpec
from mmrobust.models.heads import LinearHead
from mmrobust.tasks.families import Family

# name -> (K, ...), one row per combination. Counts add up over batches and ranks.
Counts = dict[str, Tensor]


class Predicted(Protocol):
    """The output of a head or of a method."""

    @property
    def logits(self) -> Tensor: ...

    @property
    def side(self) -> tuple[Tensor, ...]:
        """Logits at other resolutions, which decoders add in training."""
        ...


def full_logits(prediction: Tensor | Predicted) -> Tensor:
    """The logits at full resolution of a prediction; losses also accept bare logits."""
    return prediction if isinstance(prediction, Tensor) else prediction.logits


class Task(ABC):
    """A task with one target per sample. `Segmentation` overrides it for one target per pixel.

    Shapes: B samples, K combinations, C outputs of a head (`spec.num_classes`). Logits are (B, C); each task defines
    the shapes of targets and predictions.

    Attributes:
        classes: names of the classes; empty if the dataset has none.
        dense: whether features and logits are maps.
        metrics: names of the metrics that `measure` returns.
        primary: metric for selection and reports.
        kept_as: name of the array in `predictions.npz` that `kept` fills.
        families: metrics that need every sample's logits, see `tasks.families`.
        size: spatial shape of a sample's logits; () unless dense.
    """

    dense: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]]
    kept_as: ClassVar[str] = "logits"
    primary: str

    def __init__(self, spec: DataSpec) -> None:
        self.families: Mapping[str, Family] = {}
        self.num_classes, self.classes = spec.num_classes, spec.classes
        self.ignore_index = spec.ignore_index
        self.size: tuple[int, ...] = ()

    # Features, heads and losses

    def prepare(self, source: nn.Module, decoder: Mapping[str, Any] | None) -> None:
        """Store the shapes of a head's inputs and the decoder's keys; only dense tasks need them."""
        return

    def pool(self, features: Any) -> Any:
        """Average an encoder's features over all places to (B, D), the input of the fusion."""
        return features.flatten(2).mean(2) if features.dim() > 2 else features

    def head(self, width: int, skip_widths: Sequence[int] | None = None) -> nn.Module:
        """Build a head that maps features of this width to a `Prediction`."""
        return LinearHead(width, self.num_classes)

    @abstractmethod
    def loss(self, prediction: Tensor | Predicted, target: Tensor) -> Tensor:
        """The loss of every sample, (B,)."""

    # Evaluation

    @abstractmethod
    def predict(self, logits: Tensor, target: Tensor, label_size: Tensor | None) -> Tensor:
        """Turn logits (K, B, C, ...) into predictions (K, *target.shape).

        Args:
            logits: of K combinations.
            target: targets of the batch.
            label_size: see `Batch`.
        """

    def certainty(self, logits: Tensor) -> Tensor | None:
        """Certainty of each prediction in [0, 1], (K, B, ...), from logits (K, B, C, ...); None if undefined."""
        return None

    def probabilities(self, logits: Tensor) -> Tensor | None:
        """Probabilities of all classes or labels, (B, C, ...), from logits (B, C, ...); None if undefined."""
        return None

    @abstractmethod
    def pairs(self, logits: Tensor, target: Tensor, label_size: Tensor | None) -> tuple[Tensor, Tensor]:
        """Inputs of a torchmetrics metric: predictions (probabilities if the task has them) and targets.

        Args:
            logits: (N, C, ...).
            target: (N, ...); entries of `ignore_index` are left out of both results.
            label_size: see `Batch`.
        """

    @abstractmethod
    def zeros(self, rows: int) -> Counts:
        """Empty counts, (rows, ...)."""

    @abstractmethod
    def count(self, logits: Tensor, predicted: Tensor, target: Tensor, counted: Tensor) -> Counts:
        """The counts of a batch, (K, ...).

        Args:
            logits: (K, B, C, ...).
            predicted: the result of `predict`.
            target: targets of the batch.
            counted: (K, B) bool, the samples that count.
        """

    @abstractmethod
    def measure(self, counts: Counts) -> dict[str, Tensor]:
        """Compute the metrics, each (K,), from counts; nan where no sample was counted."""

    def kept(self, logits: Tensor, predicted: Tensor, target: Tensor) -> Tensor:
        """The array for `predictions.npz`, (K, B, ...), from which `count_kept` recomputes the counts."""
        return logits.float()

    def count_kept(self, kept: Tensor, target: Tensor | None, counted: Tensor) -> Counts:
        """Recompute counts from kept arrays (K, N, ...); they equal those of `count`."""
        assert target is not None
        return self.count(kept, self.predict(kept, target, None), target, counted)

    # Synthetic samples

    def example(self, size: int, generator: torch.Generator) -> Tensor:
        """Random targets of `size` samples."""
        return torch.randint(self.num_classes, (size, *self.size), generator=generator)

    def check_target(self, target: Tensor) -> None:
        """Check the target of a sample. Raises: AssertionError: the target has a wrong type, shape or value."""
        valid = target[target != self.ignore_index]
        assert target.dtype == torch.int64, f"targets are {target.dtype}, not int64"
        inside = bool(((valid >= 0) & (valid < self.num_classes)).all())
        assert inside, f"targets are not in [0, {self.num_classes})"
