"""A late-fusion transformer over modality tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

from mmrobust.methods.base import Method
from mmrobust.models.transformer import ModalityTransformer
from mmrobust.tasks.registry import TASKS


class Transformer(Method):
    """A class token attends to one token of each available modality; absent tokens are masked as keys.

    The generic multimodal transformer as a baseline, not one paper's: see `ModalityTransformer`. With `drop`
    it sees, for every sample and epoch, one combination drawn uniformly, as in modality dropout.

    Args:
        width: of the tokens.
        depth: number of transformer blocks.
        heads: of the attention; they divide the width.
        mlp_width: hidden layer of the blocks.
        dropout: of attention weights and of what the blocks add.
        drop: train with modality dropout; else on all that is available.
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
