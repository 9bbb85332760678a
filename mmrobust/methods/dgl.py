"""DGL: encoders learn from unimodal losses, the fusion from the multimodal one, and neither disturbs the other."""

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
    """The module's output, differentiable with respect to the inputs but not to its parameters."""
    return functional_call(module, {name: p.detach() for name, p in module.named_parameters()}, inputs)


class DGL(Method):
    """Disentangled gradient learning (Wei et al., ICCV 2025, arXiv 2507.10213).

    The multimodal loss suppresses the gradients of the encoders, so it no longer reaches them: fusion and head
    are trained on detached features by the multimodal loss alone, and every encoder by the loss of its own
    modality alone, through the same fusion and head (the other modalities hidden), whose parameters that loss
    leaves untouched.

    Read off the released code, which runs two backward passes and clears the gradients of the fusion in
    between; one pass through detached parameters gives the same gradients. Its variant with a head of its own
    for the unimodal predictions is left out.

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
