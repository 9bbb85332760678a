"""Small methods and batches, made for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from mmrobust.batch import Batch
from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.methods.base import Method
from mmrobust.testing import describe_data, make_batch


def make_method(*overrides: str, **data: Any) -> Method:
    """A method as the configuration says, for made-up data; the same weights every time."""
    torch.manual_seed(0)
    config = compose_config(["encoder.width=8", *overrides]).method
    method: Method = construct(config, spec=describe_data(**data))
    return method


def batches(method: Method, *, complete: bool = False, sizes: tuple[int, ...] = (24, 9)) -> Iterator[Batch]:
    """Batches in reverse order of their samples; in segmentation some pixels are void."""
    start = sum(sizes)
    for seed, size in enumerate(sizes):
        start -= size
        batch = make_batch(method.spec, size, complete=complete, seed=seed)
        if method.spec.task == "segmentation":
            batch.target[:, :5] = method.spec.ignore_index
        yield Batch(**{**vars(batch), "index": batch.index + start})
