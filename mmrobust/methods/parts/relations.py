"""How samples relate to one another: what MMANet's teacher hands on."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from mmrobust.losses import margin_aware_distillation
from mmrobust.methods.output import Output
from mmrobust.models.pyramid import levels

LEVELS = 3  # of a pyramid that are distilled, from the deepest on


def distil_relations(
    student: Output, teacher: Output, *, axis: str, most: Sequence[int] | None, chunk: int | None
) -> Tensor:
    """Margin-aware distillation of the fused features, of pyramids added up over the deepest `LEVELS`.

    Args:
        axis, chunk: see `margin_aware_distillation`.
        most: every place is a sample, in maps that are pooled to (height, width) where they are larger; None: a map is
            one sample.
    """
    assert student.fused is not None
    assert teacher.fused is not None  # MMANet.start has seen to it
    total = student.logits.new_zeros(())
    for ours, theirs in list(zip(levels(student.fused), levels(teacher.fused), strict=False))[:LEVELS]:
        samples = [ours, theirs, teacher.logits]
        if most is not None:
            samples = [as_samples(x, ours.shape[2:], most) for x in samples]
        total = total + margin_aware_distillation(*samples, axis=axis, chunk=chunk)
    return total


def as_samples(x: Tensor, places: Sequence[int], most: Sequence[int]) -> Tensor:
    """Every place of maps (B, D, H, W), pooled to at most `most` places: (B * places, D)."""
    height, width = (min(pair) for pair in zip(places, most, strict=True))
    return F.adaptive_avg_pool2d(x, (height, width)).movedim(1, -1).flatten(0, 2)
