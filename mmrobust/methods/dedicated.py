"""One network per combination of modalities, the "customised" models of MMANet's and DMRNet's tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust.batch import Batch
from mmrobust.combinations import all_combinations, combination_code, combination_masks, combination_name
from mmrobust.errors import UserError
from mmrobust.methods.base import Features, Method, Output, Prediction
from mmrobust.methods.fusion import Fusion
from mmrobust.tasks.registry import TASKS


class Dedicated(Method):
    """Trains 2^M - 1 networks together in one run; the network of a sample's combination predicts the sample.

    Each network is plain fusion (`Fusion`) of its combination's modalities, with its own encoders, fusion and head. It
    trains on the samples that have all of these modalities; the networks share the batches only. (Gradient clipping
    uses the norm over all networks.)

    Training costs 2^(M-1) encoders of every modality. In evaluation every head runs on every row, and `torch.where`
    selects. With all K combinations stacked, a batch thus costs K^2 heads, K of which are used; the encoders, which
    cost more, run once.

    Args:
        fusion: maps widths to a fusion module; called for each network.
        max_networks: upper bound of the number of networks.

    Raises:
        UserError: 2^M - 1 is above `max_networks`.
    """

    # The method uses the task's head and loss only, so it serves every task.
    tasks = tuple(TASKS)

    def __init__(
        self, *, fusion: Callable[[Mapping[str, int]], nn.Module], max_networks: int, **base: Any
    ) -> None:
        super().__init__(fusion=None, **base)
        combinations = all_combinations(self.modalities)
        if len(combinations) > max_networks:
            raise UserError(
                f"method=dedicated trains one network for every combination: {len(combinations)} for "
                f"{len(self.modalities)} modalities, above method.max_networks={max_networks}; raise it, take "
                "fewer modalities, or one network for all combinations, such as method=dropout"
            )
        del self.encoders  # every network has its own
        self.networks = nn.ModuleDict()
        for c in combinations:
            spec = replace(self.spec, modalities={m: self.spec.modalities[m] for m in c})
            self.networks[combination_name(c)] = Fusion(**(base | {"spec": spec, "fusion": fusion}))
        masks = combination_masks(combinations, self.modalities)
        self.register_buffer("masks", masks, persistent=False)  # (K, M)
        self.masks: Tensor

    def encode_modality(self, modality: str, x: Tensor) -> Features:
        """Features of the modality from every network that reads it, {combination: (R, ...)}."""
        return {
            name: network.encode_modality(modality, x)
            for name, network in self._networks()
            if modality in network.modalities
        }

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        code, logits = combination_code(available), None
        for (name, network), own in zip(self._networks(), combination_code(self.masks), strict=True):
            complete = available.new_ones(len(available), len(network.modalities))
            predicted = network.fuse({m: features[m][name] for m in network.modalities}, complete).logits
            chosen = (code == own).reshape(-1, *[1] * (predicted.dim() - 1))
            logits = predicted if logits is None else torch.where(chosen, predicted, logits)
        assert logits is not None
        return Output(Prediction(logits))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        for (name, network), mask in zip(self._networks(), self.masks, strict=True):
            has_all = (batch.available | ~mask).all(1)  # (B,)
            own = _only(batch, network.modalities, has_all)
            output = network.fuse(network.encode(own), torch.ones_like(own.available))
            loss = torch.where(has_all, self.task.loss(output, batch.target), 0)
            terms[name] = loss.sum() / has_all.sum().clamp(min=1)
        return terms

    def _networks(self) -> list[tuple[str, Fusion]]:
        return list(self.networks.items())  # type: ignore[arg-type]


def _only(batch: Batch, modalities: tuple[str, ...], rows: Tensor) -> Batch:
    """Restrict a batch to some modalities, available only in `rows`, (B,) bool."""
    return replace(
        batch,
        inputs={m: batch.inputs[m] for m in modalities},
        available=rows[:, None].expand(-1, len(modalities)),
        noise_level=batch.noise_level[:, [batch.modalities.index(m) for m in modalities]],
        rows=None,
    )
