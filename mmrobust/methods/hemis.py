"""HeMIS: mean and variance of the features over the available modalities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmrobust.methods.base import Method
from mmrobust.methods.parts.moments import Moments
from mmrobust.tasks.registry import TASKS


@dataclass(frozen=True)
class AsReleased:
    """Deviations of the released baseline from the paper, one switch each; all off follows the paper.

    Args:
        variance_over_absent: the variance sums over all modalities with zeros for absent ones. Each absent modality
            adds the squared mean, while the divisor remains the number of present modalities.
    """

    variance_over_absent: bool


class HeMIS(Method):
    """Hetero-modal image segmentation (Havaei et al., MICCAI 2016, arXiv 1607.05194) in the form that MMANet and
    DMRNet compare with (`SURF_MV` in their released code).

    The head receives the mean and the variance over the available modalities, which are defined for any number of
    them. The variance divides by that number, as in the released baseline, and is 0 for one modality. Training uses
    modality dropout. The published encoders have equal widths; here linear maps project all to one width.

    Args:
        width: channels of the projections; the head receives twice as many.
        as_released: see `AsReleased`.
    """

    # The method uses the task's head and loss only, so it serves every task.
    tasks = tuple(TASKS)
    drop = True

    def __init__(self, *, width: int, as_released: Mapping[str, bool], **base: Any) -> None:
        quirks = AsReleased(**as_released)
        fusion = partial(Moments, width=width, over_absent=quirks.variance_over_absent)
        super().__init__(fusion=fusion, **base)
