"""MMFormer: a transformer within every modality, then one across the available modalities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrobust.batch import Batch
from mmrobust.data.spec import Modality
from mmrobust.errors import UserError
from mmrobust.methods.base import Features, Method, Output, mean_over_available
from mmrobust.models.assembly import skips_of
from mmrobust.models.encoders import PointwiseLinear
from mmrobust.models.pyramid import deepest, with_deepest
from mmrobust.models.transformer import Block
from mmrobust.tasks.registry import TASKS


@dataclass(frozen=True)
class AsReleased:
    """Deviations of the released baseline from the paper, one switch each; all off follows the paper.

    Args:
        constant_tokens: the attention masks no tokens. An absent modality's tokens are its transformer's output for
            a zero map (biases and positions), equal for all samples.
    """

    constant_tokens: bool


def places_of(encoder: nn.Module, modality: Modality) -> tuple[int, ...]:
    """The spatial size of an encoder's (deepest) map, () for vectors."""
    training = encoder.training
    with torch.no_grad():
        shape = deepest(encoder.eval()(modality.blank(1))).shape
    encoder.train(training)
    return tuple(shape[2:])


class MMFormer(Method):
    """Multimodal medical transformer (Zhang et al., MICCAI 2022, arXiv 2206.02425) in the form that MMANet and
    DMRNet compare with (`SURF_Fomer_N` in their released code): one block each, for any kind of modality.

    Every place of a modality's map is a token, with a learned position; a vector is one token. A block within
    each modality, then one across the tokens of all, where those of absent modalities are masked. A linear map
    over the token axis (absent ones are zeros) brings them to as many tokens as the largest map has, from
    which the head predicts: their mean in classification, the map that they form in segmentation. The
    unimodal logits come from one shared head on the features before the transformers, not hidden by
    modality dropout; their loss counts where a modality is available. Of a pyramid the deepest maps are tokens, the
    finer levels are fused by gated sums.

    Readings: a pointwise linear map stands for the released BatchNorm, LeakyReLU and 3x3 convolution before the
    tokens, so that vectors and sequences fit too; the weight of the unimodal losses is unknown (no training
    script is released), and so is what the warm-up of 10 epochs in its configuration warms up: there is none here.

    Args:
        auxiliary_weight: weight of the unimodal losses, which are summed over the modalities.
        side: maps are pooled to at most `side` places in each direction, sequences to at most side * side.
        width, heads, mlp_width, dropout: sizes and dropout rate of the tokens and the transformer blocks.
        as_released: see `AsReleased`.
    """

    # The method uses the task's head and loss only, so it serves every task.
    tasks = tuple(TASKS)

    def __init__(
        self,
        *,
        auxiliary_weight: float,
        side: int,
        width: int,
        heads: int,
        mlp_width: int,
        dropout: float,
        as_released: Mapping[str, bool],
        **base: Any,
    ) -> None:
        super().__init__(fusion=None, **base)
        if side < 1:
            raise UserError(f"method.side={side} leaves no token of a map; give 1 or more")
        self.auxiliary_weight, self.width = auxiliary_weight, width
        self.as_released = AsReleased(**as_released)
        sizes = {m: places_of(self.encoders[m], x) for m, x in self.spec.modalities.items()}
        self.places = {m: tuple(min(n, side ** (3 - len(p))) for n in p) for m, p in sizes.items()}
        self.tokens = {m: torch.Size(p).numel() for m, p in self.places.items()}
        self.largest = max(self.places.values(), key=lambda p: torch.Size(p).numel())
        self.projections = nn.ModuleDict({m: PointwiseLinear(w, width) for m, w in self.widths.items()})
        self.within = nn.ModuleDict({m: Block(width, heads, mlp_width, dropout) for m in self.modalities})
        self.across = Block(width, heads, mlp_width, dropout)
        total = sum(self.tokens.values())
        self.positions = nn.ParameterDict(
            {m: nn.Parameter(0.02 * torch.randn(n, width)) for m, n in self.tokens.items()}
        )
        self.positions_across = nn.Parameter(0.02 * torch.randn(total, width))
        self.dropout = nn.Dropout(dropout)
        self.restore = nn.Linear(total, torch.Size(self.largest).numel())
        self.skips = skips_of(self.encoders)
        self.head = self.task.head(width)
        self.auxiliary_head = self.task.head(width)

    def encode_modality(self, modality: str, x: Tensor) -> Features:
        """The tokens (R, T_m, width) of a modality, and `map`: the encoder's features, pooled for the task."""
        features = self.encoders[modality](x)
        x = self.projections[modality](deepest(features))  # (R, width, ...)
        return {"map": self.task.pool(with_deepest(features, x)), "tokens": self._tokens(modality, x)}

    def _tokens(self, modality: str, x: Tensor) -> Tensor:
        places = self.places[modality]
        if len(places) == 1:
            x = F.adaptive_avg_pool1d(x, places[0])
        elif places:
            x = F.adaptive_avg_pool2d(x, (places[0], places[1]))
        tokens = x.reshape(*x.shape[:2], -1).transpose(1, 2) + self.positions[modality]
        return self.within[modality](self.dropout(tokens))

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        tokens, present = [], []
        for i, m in enumerate(self.modalities):
            hidden = self.positions_across.new_zeros(())
            if self.as_released.constant_tokens:
                hidden = self._tokens(m, hidden.expand(1, self.width, *self.places[m]))
            present.append(available[:, i, None].expand(-1, self.tokens[m]))
            tokens.append(torch.where(present[i][..., None], features[m]["tokens"], hidden))
        x, seen = torch.cat(tokens, 1) + self.positions_across, torch.cat(present, 1)  # (B, T, width), (B, T)
        if self.as_released.constant_tokens:
            x = self.across(x)
        else:
            x = torch.where(seen[..., None], self.across(x, seen), 0)
        restored = self.restore(x.transpose(1, 2))  # (B, width, places of the largest map)
        fused = self.task.pool(restored.unflatten(2, self.largest or (1,)))
        fused = self.skips(fused, {m: f["map"] for m, f in features.items()}, available)
        return Output(self.head(fused), fused=fused)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encode(batch)
        output = self.fuse(features, self.draw(batch))
        terms = {"task": self.task.loss(output, batch.target).mean()}
        for i, m in enumerate(self.modalities):
            loss = self.task.loss(self.auxiliary_head(features[m]["map"]), batch.target)
            terms[m] = self.auxiliary_weight * mean_over_available(loss, batch.available[:, i])
        return terms
