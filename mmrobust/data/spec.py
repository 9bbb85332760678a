"""A dataset's description: its modalities, its task, its classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("image", "depth", "spectrogram", "sequence", "video", "vector")


@dataclass(frozen=True)
class Modality:
    """One kind of input. Shapes (without the batch): image and spectrogram (C, H, W), depth (1, H, W),
    sequence (C, T), video (C, T, H, W), vector (D,). Depth is metric, normalised by the dataset."""

    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class DataSpec:
    """What a method needs to know of a dataset; saved with every checkpoint as plain data."""

    task: str  # classification | segmentation
    num_classes: int
    num_train: int
    modalities: Mapping[str, Modality]
    classes: tuple[str, ...] = ()
    ignore_index: int = -100  # label of pixels that do not count
    class_weights: tuple[float, ...] = ()  # of the pixels' losses, one a class; none: all are 1
    metrics: tuple[str, ...] = ()  # further families of metrics, see `evaluation.families`
    primary: str = ""  # the metric that selects and is reported; none: the task's own

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> DataSpec:
        modalities = {m: Modality(x["kind"], tuple(x["shape"])) for m, x in plain["modalities"].items()}
        lists = {n: tuple(plain.get(n, ())) for n in ("classes", "class_weights", "metrics")}
        return cls(**{**plain, "modalities": modalities, **lists})
