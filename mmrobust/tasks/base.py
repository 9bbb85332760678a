"""What a task is: targets, heads, a sample's loss, what is predicted, and the counts that its metrics are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from mmrobust.data.spec import DataSpec
from mmrobust.models.heads import LinearHead
from mmrobust.tasks.families import Family

Counts = dict[str, Tensor]  # name -> (K, ...), one row a combination; they add up over batches and ranks


class Predicted(Protocol):
    """A head's output, or a method's."""

    @property
    def logits(self) -> Tensor: ...

    @property
    def side(self) -> tuple[Tensor, ...]:
        """Logits at other resolutions, in training."""
        ...


def full_logits(prediction: Tensor | Predicted) -> Tensor:
    """The logits at full resolution, which losses also take alone."""
    return prediction if isinstance(prediction, Tensor) else prediction.logits


class Task(ABC):
    """A task with one target for a sample; `Segmentation` has one for every pixel.

    Shapes: B samples, K combinations, C outputs of a head (`spec.num_classes`). Logits are (B, C), targets and
    predictions what the task says.

    Attributes:
        classes: their names, none where the dataset has none.
        dense: whether features and logits are maps.
        metrics: what `measure` gives.
        primary: the metric that selects and is reported.
        kept_as: the array of `predictions.npz` that `kept` fills.
        families: metrics that need every sample's logits, see `tasks.families`.
        size: of a sample's logits, behind the outputs.
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

    # Of a method's parts

    def prepare(self, source: nn.Module, decoder: Mapping[str, Any] | None) -> None:
        """Learn what heads will be given, and how they are made; only heads of maps need to know."""
        return

    def pool(self, features: Any) -> Any:
        """What of an encoder's features the fusion sees: the mean over all places, (B, D)."""
        return features.flatten(2).mean(2) if features.dim() > 2 else features

    def head(self, width: int, skip_widths: Sequence[int] | None = None) -> nn.Module:
        """A new head: features of this width to a `Prediction`."""
        return LinearHead(width, self.num_classes)

    @abstractmethod
    def loss(self, prediction: Tensor | Predicted, target: Tensor) -> Tensor:
        """The loss of every sample, (B,)."""

    # Of the evaluation

    @abstractmethod
    def predict(self, logits: Tensor, target: Tensor, label_size: Tensor | None) -> Tensor:
        """Logits (K, B, C, ...) to what is predicted, (K, *target.shape).

        Args:
            target: of the batch.
            label_size: see `Batch`.
        """

    def certainty(self, logits: Tensor) -> Tensor | None:
        """How sure each prediction is, in [0, 1]: (K, B, ...) of logits (K, B, C, ...); None if that means nothing."""
        return None

    def probabilities(self, logits: Tensor) -> Tensor | None:
        """Of every class or label, (B, C, ...) of logits (B, C, ...); None if there are none."""
        return None

    @abstractmethod
    def pairs(self, logits: Tensor, target: Tensor, label_size: Tensor | None) -> tuple[Tensor, Tensor]:
        """What a metric of torchmetrics is given: of logits (N, C, ...) and targets (N, ...) what is predicted, as
        probabilities where there are any, and the targets, without those that do not count."""

    @abstractmethod
    def zeros(self, rows: int) -> Counts:
        """Counts of nothing: (rows, ...)."""

    @abstractmethod
    def count(self, logits: Tensor, predicted: Tensor, target: Tensor, counted: Tensor) -> Counts:
        """The counts of a batch, (K, ...).

        Args:
            logits: (K, B, C, ...).
            predicted: what `predict` gave.
            target: of the batch.
            counted: (K, B) bool, who counts.
        """

    @abstractmethod
    def measure(self, counts: Counts) -> dict[str, Tensor]:
        """The metrics of counts, each (K,); nan where nothing was counted."""

    def kept(self, logits: Tensor, predicted: Tensor, target: Tensor) -> Tensor:
        """What `predictions.npz` keeps, (K, B, ...): all that `count_kept` needs beside the targets."""
        return logits.float()

    def count_kept(self, kept: Tensor, target: Tensor | None, counted: Tensor) -> Counts:
        """The counts of what was kept, (K, N, ...), as `count` would have counted it."""
        assert target is not None
        return self.count(kept, self.predict(kept, target, None), target, counted)

    # Of made-up samples

    def example(self, size: int, generator: torch.Generator) -> Tensor:
        """Random targets of `size` samples."""
        return torch.randint(self.num_classes, (size, *self.size), generator=generator)

    def check_target(self, target: Tensor) -> None:
        """Raises: AssertionError: says what is wrong with a sample's target."""
        valid = target[target != self.ignore_index]
        assert target.dtype == torch.int64, f"targets are {target.dtype}, not int64"
        inside = bool(((valid >= 0) & (valid < self.num_classes)).all())
        assert inside, f"targets are not in [0, {self.num_classes})"
