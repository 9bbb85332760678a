"""Encodes only those rows of a batch that have a modality."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from mmrobust.models.encoders import few_rows, running_statistics, scatter_rows


def encode_rows(
    network: nn.Module, encode: Callable[[Tensor], Any], x: Tensor, rows: Tensor | None, count: int
) -> Any:
    """Compute the features of a batch, nestings of (count, ...), with zeros in rows that lack the modality.

    If no row has the modality, a row of zeros is encoded and multiplied by 0, so that DDP finds a gradient for every
    parameter. If SyncBatchNorm synchronises with other ranks, the empty batch itself is encoded.

    Args:
        network: the network to which `encode` belongs.
        encode: maps inputs (R, ...) to features.
        x: inputs (count, ...), undefined in rows that lack the modality.
        rows: indices (R,) of the rows that have the modality; None: all.
        count: number of rows of the batch.
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
