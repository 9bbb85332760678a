"""LCR: latent correlation representation, which reconstructs every modality's features from the others."""

from __future__ import annotations

from functools import partial
from typing import Any

from mmrobust.methods.base import Method
from mmrobust.methods.parts.correlation import LatentCorrelation
from mmrobust.tasks.registry import TASKS


class LCR(Method):
    """Latent correlation representation learning (Zhou et al., IEEE TIP 2021) in the form that MMANet and DMRNet
    compare with (`SURF_CR` in their released code): the task loss only, with modality dropout.

    See `LatentCorrelation` for the rule. Readings: the released baseline hides images, so its encoders run on zeros;
    here, as in all methods, dropout hides features. Encoders of different widths are projected to one width. The
    method needs at least two modalities.

    Args:
        width: channels of the projected and of the reconstructed features.
        hidden: width of the hidden layers of the MLPs that predict the coefficients.
    """

    # The method uses the task's head and loss only, so it serves every task.
    tasks = tuple(TASKS)
    drop = True

    def __init__(self, *, width: int, hidden: int, **base: Any) -> None:
        super().__init__(fusion=partial(LatentCorrelation, width=width, hidden=hidden), **base)
