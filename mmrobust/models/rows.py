"""Encoding the rows of a batch that have a modality, and only those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from mmrobust.models.encoders import few_rows, running_statistics, scatter_rows


def encode_rows(
    network: nn.Module, encode: Callable[[Tensor], Any], x: Tensor, rows: Tensor | None, count: int
) -> Any:
    """Features of a batch, nests of (count, ...): zeros in rows that lack the modality.

    Without any row that has it, a zero row is encoded all the same, times 0, so that DDP finds a gradient for each of
    the parameters; with SyncBatchNorm, whose ranks must meet, none is.

    Args:
        network: what `encode` belongs to.
        encode: inputs (R, ...) to features.
        x: (count, ...), undefined in the other rows.
        rows: which rows have the modality, (R,); None: all.
    """
    given = len(x) if rows is None else len(rows)
    few = network.training and few_rows(network, given)
    with running_statistics(network, active=few):
        if rows is None:
            return encode(x)
        if given == 0 and (few or not network.training):
            features = encode(x.new_zeros(1, *x.shape[1:]))
            return apply_to_collection(features, Tensor, lambda f: (0 * f).expand(count, *f.shape[1:]))
        return apply_to_collection(encode(x[rows]), Tensor, lambda f: scatter_rows(rows, f, count))
