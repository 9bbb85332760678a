"""The description of a dataset: its modalities, task and classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mmrobust.data.kinds import KINDS, Kind

if TYPE_CHECKING:
    from torch import Tensor

# The fields of `DataSpec` that `from_dict` restores as tuples; each may be empty.
LISTS = ("classes", "class_weights", "metrics", "target_mean", "target_std")


@dataclass(frozen=True)
class Modality:
    """The kind and the shape of one input.

    Shapes (without the batch): image and spectrogram (C, H, W), depth (1, H, W), sequence (C, T), video (C, T, H, W),
    vector (D,), text (L,). Depth is metric and normalised by the dataset; text consists of Unicode code points, padded
    with 0 at the end.
    """

    kind: str
    shape: tuple[int, ...]

    @property
    def traits(self) -> Kind:
        """The properties that all modalities of this kind share."""
        return KINDS[self.kind]

    def blank(self, size: int) -> Tensor:
        """The placeholder input of rows that lack the modality, (size, *shape)."""
        return self.traits.blank(size, self.shape)


@dataclass(frozen=True)
class DataSpec:
    """The properties of a dataset that a method needs. Every checkpoint stores them as plain data.

    Attributes:
        task: classification | segmentation | regression | multilabel.
        num_classes: number of classes; for regression of predicted numbers, for multilabel of labels.
        num_train: number of training samples.
        modalities: kind and shape by modality name.
        classes: names of the classes; empty if the dataset has none.
        ignore_index: label of pixels that losses and metrics ignore.
        class_weights: weight of each class in the pixels' losses; empty: 1 each.
        metrics: names of further metric families, see `tasks.families`.
        primary: metric for selection and reports; empty: the task's own.
        target_mean, target_std: statistics of regression targets over train, one per number; `setup` fills them in.
        statistics: other statistics over train that input preparation uses, plain data by modality; see
            `DataModule.reader`.
    """

    task: str
    num_classes: int
    num_train: int
    modalities: Mapping[str, Modality]
    classes: tuple[str, ...] = ()
    ignore_index: int = -100
    class_weights: tuple[float, ...] = ()
    metrics: tuple[str, ...] = ()
    primary: str = ""
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()
    statistics: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> DataSpec:
        modalities = {m: Modality(x["kind"], tuple(x["shape"])) for m, x in plain["modalities"].items()}
        lists = {n: tuple(plain.get(n, ())) for n in LISTS}
        return cls(**{**plain, "modalities": modalities, **lists})
