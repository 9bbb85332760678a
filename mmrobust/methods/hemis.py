"""HeMIS: mean and variance over whatever modalities there are."""

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
        variance_over_absent: the variance sums over all modalities, absent ones as zeros: each adds the squared
            mean, while the divisor stays the number of present ones.
    """

    variance_over_absent: bool


class HeMIS(Method):
    """Hetero-modal image segmentation (Havaei et al., MICCAI 2016, arXiv 1607.05194) in the form that MMANet and
    DMRNet compare with (`SURF_MV` in their released code).

    What is predicted from is the mean and the variance over the modalities that are present, defined for any
    number of them. The variance divides by their number, as the released baseline does, and is 0 for one.
    Trained with modality dropout. The published encoders are equally wide; here each is projected to one width.

    Args:
        width: of the projections; the head sees twice that.
        as_released: see `AsReleased`.
    """

    # The method uses the task's head and loss only, so it serves every task.
    tasks = tuple(TASKS)
    drop = True

    def __init__(self, *, width: int, as_released: Mapping[str, bool], **base: Any) -> None:
        quirks = AsReleased(**as_released)
        fusion = partial(Moments, width=width, over_absent=quirks.variance_over_absent)
        super().__init__(fusion=fusion, **base)
