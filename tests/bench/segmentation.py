"""What the segmentation benchmarks compare: sizes, and the step that one would write by hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LAYOUTS: dict[
    str, dict[str, Any]
] = {  # evaluation of all combinations with fusions beside plain concatenation
    "segmentation": {"task": "segmentation", "fusion": "pyramid", "modalities": 2, "goal": 1.65},
    "esanet": {"task": "segmentation", "fusion": "esanet", "modalities": 2, "goal": 1.9},
    "trunk": {"task": "classification", "fusion": "trunk", "modalities": 3, "goal": None},
}
CLASSES = 40
EVALUATION = {
    "cpu": {"pixels": 128, "batch": 4, "batches": 1, "rounds": 9},
    "cuda": {"pixels": 480, "batch": 8, "batches": 4, "rounds": 9},
}
TRAINING = {
    "cpu": {"pixels": 128, "batch": 4, "steps": 5, "turn": 1, "rounds": 25},
    "cuda": {"pixels": 256, "batch": 8, "steps": 30, "turn": 10, "rounds": 11},
}


def plain_loss(net: Any, inputs: dict[str, Tensor], target: Tensor, mask: Tensor, mined: Tensor) -> Tensor:
    """Modality dropout with deep supervision. `net`: for its layers; `mined` is for others."""
    maps = [net.encoders[name](x) for name, x in inputs.items()]
    shown = mask[:, :, None, None, None]
    skips = []
    for i, level in enumerate(net.fusion.skips.levels):
        gated = [g(torch.where(shown[:, m], maps[m].skips[i], 0)) for m, g in enumerate(level.gates)]
        skips.append(sum(gated[1:], gated[0]))
    deep = net.fusion.fusion
    gated = [g(torch.where(shown[:, m], maps[m].deep, 0)) for m, g in enumerate(deep.sum.gates)]
    features = maps[0]._replace(deep=deep.context(sum(gated[1:], gated[0])), skips=tuple(skips))
    logits, side = net.head(features)
    total = F.cross_entropy(logits, target)
    for other in side:
        step = target.shape[-1] // other.shape[-1]
        total = total + F.cross_entropy(other, target[:, ::step, ::step])
    return total
