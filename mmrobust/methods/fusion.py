"""Plain joint training: every sample is fused from all that it has."""

from __future__ import annotations

from mmrobust.methods.base import Method
from mmrobust.tasks.registry import TASKS


class Fusion(Method):
    """Encoders, a fusion and a head, trained on what is available. Nothing prepares it for absence."""

    tasks = tuple(TASKS)  # through their heads and losses alone
