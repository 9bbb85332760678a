"""A dataset's description: its modalities, its task, its classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mmrobust.data.kinds import KINDS, Kind

if TYPE_CHECKING:
    from torch import Tensor

# Of a `DataSpec`; all may be empty.
LISTS = ("classes", "class_weights", "metrics", "target_mean", "target_std")


@dataclass(frozen=True)
class Modality:
    """One kind of input. Shapes (without the batch): image and spectrogram (C, H, W), depth (1, H, W),
    sequence (C, T), video (C, T, H, W), vector (D,), text (L,). Depth is metric, normalised by the dataset; text is
    Unicode code points, 0 behind the last."""

    kind: str
    shape: tuple[int, ...]

    @property
    def traits(self) -> Kind:
        """What all of this kind share."""
        return KINDS[self.kind]

    def blank(self, size: int) -> Tensor:
        """What stands where it is absent: (size, *shape)."""
        return self.traits.blank(size, self.shape)


@dataclass(frozen=True)
class DataSpec:
    """What a method needs to know of a dataset; saved with every checkpoint as plain data."""

    task: str  # classification | segmentation | regression | multilabel
    num_classes: int  # of a regression the numbers that are predicted, of several labels the labels
    num_train: int
    modalities: Mapping[str, Modality]
    classes: tuple[str, ...] = ()
    ignore_index: int = -100  # label of pixels that do not count
    class_weights: tuple[float, ...] = ()  # of the pixels' losses, one a class; none: all are 1
    metrics: tuple[str, ...] = ()  # further families of metrics, see `tasks.families`
    primary: str = ""  # the metric that selects and is reported; none: the task's own
    target_mean: tuple[
        float, ...
    ] = ()  # of a regression's targets over train, one a number; filled in by `setup`
    target_std: tuple[float, ...] = ()
    # What else was measured over train and prepares inputs, plain data by modality; see `DataModule.reader`.
    statistics: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> DataSpec:
        modalities = {m: Modality(x["kind"], tuple(x["shape"])) for m, x in plain["modalities"].items()}
        lists = {n: tuple(plain.get(n, ())) for n in LISTS}
        return cls(**{**plain, "modalities": modalities, **lists})
