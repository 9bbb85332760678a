"""`Batch`: what a DataLoader yields and a method receives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
    """B samples with M modalities; the order of `inputs` is the order of every (B, M) tensor.

    Rows of `inputs[m]` where `available[:, m]` is false hold undefined content: select rows or use
    `torch.where`, never multiply by the mask.
    """

    # modality -> (B, ...)
    inputs: dict[str, Tensor]
    # (B, M) bool: false where the modality is absent on disk or taken away by the missing protocol
    available: Tensor
    # (B,) class indices, or (B, H, W) labels, padded where they differ in size
    target: Tensor
    # (B, M) float: 0 is clean
    noise_level: Tensor
    # (B,) int64: position in the split
    index: Tensor
    # (B,) names of the samples
    ids: list[str]
    # modality -> indices of the rows that have it, for each modality that some row lacks. They are computed on the
    # host, because reading them from a GPU would synchronise it.
    rows: dict[str, Tensor] | None = None
    # (B, 2) int64, heights and widths of the labels; None: all labels fill the target
    label_size: Tensor | None = None

    def __post_init__(self) -> None:
        if self.rows is None:
            columns = zip(self.inputs, self.available.unbind(1), strict=True)
            self.rows = {m: column.nonzero().squeeze(1) for m, column in columns if not bool(column.all())}

    def __len__(self) -> int:
        return len(self.index)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.inputs)

    def to(self, device: torch.device | str) -> Batch:
        """Copy the batch to another device; a copy to a GPU is asynchronous. Lightning calls this."""
        wait = torch.device(device).type != "cuda"
        return self._apply(lambda tensor: tensor.to(device, non_blocking=not wait))

    def pin_memory(self) -> Batch:
        """Copy the batch to pinned memory. The DataLoader calls this."""
        return self._apply(Tensor.pin_memory)

    def select(self, rows: Tensor | Sequence[int]) -> Batch:
        """Select rows by index, in the given order, or by a (B,) bool mask."""
        rows = torch.as_tensor(rows, device=self.index.device)
        if rows.dtype == torch.bool:
            rows = rows.nonzero().squeeze(1)
        ids = [self.ids[row] for row in rows.tolist()]
        return replace(replace(self, rows={})._apply(lambda tensor: tensor[rows]), ids=ids, rows=None)

    def with_available(self, available: Tensor) -> Batch:
        """The same samples with other modalities available, (B, M) bool."""
        return replace(self, available=available, rows=None)

    def _apply(self, function: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = function(value)
            elif isinstance(value, dict):
                changed[field.name] = {m: function(x) for m, x in value.items()}
        return replace(self, **changed)
