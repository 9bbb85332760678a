"""Transformers over tokens of which some are absent."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrobust.errors import UserError
from mmrobust.models.encoders import PointwiseLinear
from mmrobust.models.fusion import check_places, masked


class Block(nn.Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)) with GELU.

    Args:
        width: of the tokens.
        heads: of the attention; they divide the width.
        mlp_width: of the hidden layer.
        dropout: of attention weights and of what is added to the tokens.

    Raises:
        UserError: the heads do not divide the width.

    Source: Vaswani et al. (NeurIPS 2017, arXiv 1706.03762), normalised before as in Dosovitskiy et al.
    (ICLR 2021, arXiv 2010.11929).
    """

    def __init__(self, width: int, heads: int, mlp_width: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise UserError(
                f"{heads} attention heads do not divide tokens of width {width}; choose a width that is a "
                f"multiple of the heads, such as {heads * (width // heads + 1)}"
            )
        self.heads, self.dropout = heads, dropout
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_width, width)
        )

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """Tokens (B, T, D), of which `present` (B, T) bool may be attended to (None: all), to (B, T, D).

        Absent tokens change nothing at the present ones; what comes out at their own places means nothing.
        A row without any present token attends to nothing.
        """
        if present is not None:
            tokens = torch.where(present[..., None], tokens, 0)
        tokens = tokens + self._drop(self._attend(self.attention_norm(tokens), present))
        return tokens + self._drop(self.mlp(self.mlp_norm(tokens)))

    def _attend(self, tokens: Tensor, present: Tensor | None) -> Tensor:
        split = self.query_key_value(tokens).unflatten(2, (3, self.heads, -1))  # (B, T, 3, heads, D / heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mask, anything = None, None
        if present is not None:
            anything = present.any(1)  # a softmax over nothing would be nan
            mask = (present | ~anything[:, None])[:, None, None]
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        if anything is not None:
            attended = torch.where(anything[:, None, None, None], attended, 0)
        return self.projection(attended.transpose(1, 2).flatten(2))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class ModalityTransformer(nn.Module):
    """Fusion by attention over modalities: a class token attends to one token of each available modality.

    A token is the modality's feature, projected to a common width, plus a learned vector that says which
    modality it is. Maps have their own tokens at every place: attention is over modalities, not over places.

    Args:
        widths: of the modalities' features.
        width: of the tokens and of the result.
        depth: number of blocks.
        heads, mlp_width, dropout: see `Block`.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        *,
        width: int,
        depth: int,
        heads: int,
        mlp_width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.width = width
        self.projections = nn.ModuleList([PointwiseLinear(w, width) for w in widths.values()])
        self.which = nn.Parameter(0.02 * torch.randn(len(widths), width))
        self.class_token = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.ModuleList([Block(width, heads, mlp_width, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Mapping[str, Tensor], available: Tensor) -> Tensor:
        """Features (B, D_m, ...) of the modalities `available` (B, M) to (B, width, ...)."""
        check_places(features)
        present = masked(features, available)
        projected = [f(x).movedim(1, -1) for f, x in zip(self.projections, present, strict=True)]
        tokens = torch.stack(projected, -2) + self.which  # (B, ..., M, width)
        tokens = torch.cat([self.class_token.expand(*tokens.shape[:-2], 1, -1), tokens], -2)
        places = tokens.shape[:-2]  # (B, ...)
        known = torch.cat([available.new_ones(len(available), 1), available], 1)  # the class token always is
        known = known.repeat_interleave(places.numel() // len(available), 0)
        tokens = tokens.flatten(0, -3)
        for block in self.blocks:
            tokens = block(tokens, known)
        return self.norm(tokens[:, 0]).unflatten(0, places).movedim(-1, 1)
