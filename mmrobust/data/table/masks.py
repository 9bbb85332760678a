"""Label images of a user's own: which values are classes, and which pixels do not count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust.data.files import images
from mmrobust.data.files.arrays import read_array, type_of
from mmrobust.errors import UserError

VOID = 255  # in targets, whatever it is in the files
MOST = 255  # classes
NEUTRAL = {
    "ignore_index": VOID,
    "class_weights": "none",
    "label_offset": 0,
}  # keys that other targets have no use for


@dataclass(frozen=True)
class MaskLabels:
    """How the values in mask files become classes 0, ..., count - 1.

    Args:
        count: number of classes.
        ignore_index: value that does not count; None: there is none.
        offset: added to the values; below 0 does not count.
        values: of the classes in order, if they are not counted up; then `offset` is not used.
    """

    count: int
    ignore_index: int | None
    offset: int
    values: tuple[int, ...] | None = None

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> MaskLabels:
        values = plain["values"]
        return cls(**{**plain, "values": None if values is None else tuple(values)})

    def read(self, path: Path) -> np.ndarray:
        """Classes (H, W) int64, VOID where a pixel does not count.

        Raises:
            UserError: the file cannot be read or holds other values.
        """
        raw = read_values(path)
        if self.values is not None:
            known = np.array(self.values)
            place = np.searchsorted(known, raw).clip(max=len(known) - 1)
            void = np.zeros(raw.shape, bool) if self.ignore_index is None else raw == self.ignore_index
            wrong, label = ~void & (known[place] != raw), np.where(void, VOID, place)
        else:
            label = raw + self.offset
            void = label < 0 if self.ignore_index is None else (label < 0) | (raw == self.ignore_index)
            wrong = ~void & (label >= self.count)
            label = np.where(void, VOID, label)
        if wrong.any():
            raise UserError(
                f"{path} holds the value {raw[wrong].max()}, but there are {self.count} classes; mend it, or set "
                "data.classes to their number"
            )
        return label


def idle_keys(target: str, given: Mapping[str, Any]) -> list[str]:
    """Those of NEUTRAL that were set although the targets are no masks, in words."""
    return [
        f"data.{key}={given[key]} has no effect: it is for masks, and the target is a {target}; leave it out"
        for key, value in NEUTRAL.items()
        if given[key] != value
    ]


def read_values(path: Path) -> np.ndarray:
    """The integers (H, W) int64 of a label image or a .npy file. Raises: UserError: it holds none."""
    if type_of(path) != "arrays":
        return images.read_indices(path).astype(np.int64)
    array = read_array(path)
    array = array.squeeze()
    if array.ndim != 2 or array.dtype.kind not in "bui":
        raise UserError(f"{path} holds {array.shape} of {array.dtype}; expected class numbers (H, W)")
    return array.astype(np.int64)


def find_labels(counts: Mapping[int, int], ignore_index: int | None, offset: int, classes: Any) -> MaskLabels:
    """What the values in masks mean.

    Args:
        counts: every value that occurs -> number of files.
        ignore_index, offset: as in `MaskLabels`.
        classes: number of classes or their names, if the user says so.

    Raises:
        UserError: fewer than two classes or too many.
    """
    values = tuple(sorted(counts))
    given = classes if isinstance(classes, int) or classes is None else len(classes)
    if ignore_index is None and not offset:
        labels = MaskLabels(len(values), None, 0, values)
    else:
        kept = [v + offset for v in values if v != ignore_index and v + offset >= 0]
        labels = MaskLabels(given or max(kept, default=0) + 1, ignore_index, offset)
        if given == len(kept) and max(kept, default=0) >= given and not offset:
            labels = MaskLabels(given, ignore_index, 0, tuple(kept))
    found = f"the masks hold the values {few_values(values)}"
    if labels.count < 2:
        raise UserError(
            f"{found}, which leaves {labels.count} class; if {ignore_index} is one too: data.ignore_index=null"
        )
    if labels.count > MOST:
        raise UserError(f"{found}, that is {labels.count} classes of at most {MOST}; are these label images?")
    if labels.values is None and given is None and len(kept) < labels.count:
        among = sorted({*range(labels.count)} - {*kept})
        raise UserError(
            f"{found}; counted up that would be {labels.count} classes, but there is no {few_values(among)}. If there are "
            f"so many, say so: data.classes={labels.count}"
            + (
                f"; if what occurs are the classes: data.classes={len(kept)}"
                if not offset and len(kept) > 1
                else ""
            )
            + ("; if they start at 1: data.label_offset=-1" if min(kept) == 1 and not offset else "")
            + (
                f", or data.ignore_index=null, where {ignore_index} is one, too"
                if ignore_index in values
                else ""
            )
        )
    if labels.values and given not in (None, labels.count):
        raise UserError(f"{found}: {labels.count} classes, but data.classes has {given}; make them agree")
    return labels


def unlike(sizes: Mapping[str, Sequence[int]], mask: Sequence[int]) -> str:
    """What is wrong with maps of another (height, width) than the mask; empty if nothing is."""
    wrong = [f"{m} has {tuple(size)}" for m, size in sizes.items() if tuple(size) != tuple(mask)]
    return f"the mask has (height, width) {tuple(mask)}, {', '.join(wrong)}; make them alike" if wrong else ""


def few_values(values: Iterable[int]) -> str:
    """The first and the last."""
    texts = [str(v) for v in values]
    return ", ".join(texts if len(texts) < 9 else [*texts[:4], "...", texts[-1]])
