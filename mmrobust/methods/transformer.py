"""A late-fusion transformer over modality tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

from mmrobust.methods.base import Method
from mmrobust.models.transformer import ModalityTransformer
from mmrobust.tasks.registry import TASKS


class Transformer(Method):
    """A class token attends to one token of each available modality; absent tokens are masked as keys.

    A generic multimodal transformer as a baseline, not the method of one paper; see `ModalityTransformer`. With
    `drop`, training uses modality dropout: one uniformly drawn combination for every sample and epoch.

    Args:
        width: width of the tokens.
        depth: number of transformer blocks.
        heads: number of attention heads, which must divide the width.
        mlp_width: width of the blocks' hidden layer.
        dropout: dropout rate of attention weights and residual branches.
        drop: whether to train with modality dropout; else on all available modalities.
    """

    # The method uses the task's head and loss only, so it serves every task.
    tasks = tuple(TASKS)

    def __init__(
        self, *, width: int, depth: int, heads: int, mlp_width: int, dropout: float, drop: bool, **base: Any
    ) -> None:
        fusion = partial(
            ModalityTransformer, width=width, depth=depth, heads=heads, mlp_width=mlp_width, dropout=dropout
        )
        super().__init__(fusion=fusion, **base)
        self.drop = drop
