"""Plain joint training on all available modalities of every sample."""

from __future__ import annotations

from mmrobust.methods.base import Method
from mmrobust.tasks.registry import TASKS


class Fusion(Method):
    """Encoders, a fusion and a head, trained on the available modalities without any measure against absence."""

    # The method uses the task's head and loss only, so it serves every task.
    tasks = tuple(TASKS)
