"""Modality dropout, the baseline of MMANet and DMRNet ("MD", "SF-MD" in their tables)."""

from __future__ import annotations

from mmrobust.methods.base import Method
from mmrobust.tasks.registry import TASKS


class ModalityDropout(Method):
    """Plain fusion of one combination, drawn uniformly for every sample and epoch.

    Dropout hides features from the fusion. The encoders and their BatchNorm still see every available row, as in
    the released code of MMANet and DMRNet.
    """

    # The method uses the task's head and loss only, so it serves every task.
    tasks = tuple(TASKS)
    drop = True
