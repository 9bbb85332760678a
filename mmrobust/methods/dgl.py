"""DGL: encoders learn from unimodal losses only, the fusion from the multimodal loss only."""

from __future__ import annotations

from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.func import functional_call

from mmrobust.batch import Batch
from mmrobust.methods.base import Method, mean_over_available
from mmrobust.tasks.registry import TASKS


def apply_detached(module: nn.Module, *inputs: Any) -> Any:
    """Compute the module's output so that gradients reach the inputs but not the module's parameters."""
    return functional_call(module, {name: p.detach() for name, p in module.named_parameters()}, inputs)


class DGL(Method):
    """Disentangled gradient learning (Wei et al., ICCV 2025, arXiv 2507.10213).

    The multimodal loss suppresses the gradients of the encoders, so the method cuts this path. The multimodal loss
    trains fusion and head on detached features. The unimodal loss of a modality trains its encoder only, through the
    same fusion and head (with the other modalities hidden), whose parameters receive no gradient from it.

    Source: the released code, which runs two backward passes and clears the gradients of the fusion in between. One
    pass through detached parameters yields the same gradients. The variant with a separate head for the unimodal
    predictions is not implemented.

    Args:
        unimodal_weight: alpha, of the unimodal losses, summed over the modalities.
    """

    # The method uses the task's head and loss only, so it serves every task.
    tasks = tuple(TASKS)

    reads_parameters = True

    def __init__(self, *, unimodal_weight: float, **base: Any) -> None:
        super().__init__(**base)
        self.unimodal_weight = unimodal_weight

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encode(batch)
        detached = apply_to_collection(features, Tensor, Tensor.detach)
        output = self.fuse(detached, batch.available)
        terms = {"task": self.task.loss(output, batch.target).mean()}
        only = torch.eye(len(self.modalities), dtype=torch.bool, device=self.device)
        for i, m in enumerate(self.modalities):
            fused = apply_detached(self.fusion, features, only[i].expand(len(batch), -1))
            loss = self.task.loss(apply_detached(self.head, self.task.pool(fused)), batch.target)
            terms[m] = self.unimodal_weight * mean_over_available(loss, batch.available[:, i])
        return terms
