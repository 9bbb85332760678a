"""What flows from the data to a method."""

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

    inputs: dict[str, Tensor]  # modality -> (B, ...)
    available: Tensor  # (B, M) bool: what anybody may use; false for holes on disk and for missing data
    target: Tensor  # (B,) class indices, or (B, H, W) labels, padded where they differ in size
    noise_level: Tensor  # (B, M) float: 0 is clean
    index: Tensor  # (B,) int64: position in the split
    ids: list[str]  # (B,) names of the samples
    rows: dict[str, Tensor] | None = None  # of each modality that some sample lacks: the rows that have it
    # (kept since the data came from disk, so that nobody has to ask the device)
    label_size: Tensor | None = (
        None  # (B, 2) int64, heights and widths of the labels; None: all fill the target
    )

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
        """The same batch on another device, copied to a GPU while the host goes on; called by Lightning."""
        wait = torch.device(device).type != "cuda"
        return self._apply(lambda tensor: tensor.to(device, non_blocking=not wait))

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory; called by the DataLoader."""
        return self._apply(Tensor.pin_memory)

    def select(self, rows: Tensor | Sequence[int]) -> Batch:
        """Some of the samples, in the given order."""
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
