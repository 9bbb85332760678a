"""Modality dropout: the reference point of MMANet and DMRNet ("MD", "SF-MD")."""

from __future__ import annotations

from mmrobust.methods.base import Method
from mmrobust.tasks.registry import TASKS


class ModalityDropout(Method):
    """Plain fusion that sees, for every sample and epoch, one combination drawn uniformly.

    Features are hidden from the fusion; the encoders still see every available row, so their BatchNorm does
    too, as in the released code of MMANet and DMRNet.
    """

    tasks = tuple(TASKS)  # through their heads and losses alone
    drop = True
