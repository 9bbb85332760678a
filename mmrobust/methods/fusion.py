"""Plain joint training: every sample is fused from all that it has."""

from __future__ import annotations

from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.methods.base import Method
from mmrobust.tasks.registry import TASKS


class Fusion(Method):
    """Encoders, a fusion and a head, trained on what is available. Nothing prepares it for absence."""

    tasks = tuple(TASKS)  # through their heads and losses alone

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        output = self.fuse(self.encode(batch), batch.available)
        return {"task": self.task.loss(output, batch.target).mean()}
