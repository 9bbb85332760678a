"""ARL: reliance on each modality in proportion to its inverse prediction variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.errors import UserError
from mmrobust.methods.base import Method, mean_over_available, tensors
from mmrobust.methods.parts.balance import mean_over_rows


@dataclass(frozen=True)
class AsReleased:
    """Deviations of the released code from the paper, one switch each; all off follows the paper.

    Args:
        uniform: the coefficients are computed and never used: every encoder's gradient grows by 0.5.
    """

    uniform: bool


def shares(values: Tensor) -> Tensor:
    """Divide values (M,) by their sum; zeros if the sum is 0."""
    return values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)


def asymmetric_coefficients(
    reliance: Tensor, entropy: Tensor, seen: Tensor, *, temperature: float, floor: float
) -> Tensor:
    """The additional weight k (M,) of each encoder's gradient, which sums to 1 over the modalities seen.

    With d the shares of reliance and q the shares of 1 / entropy, k = softmax(T q (1 - d)). A modality whose reliance
    is below its share of inverse variance receives more. For M = 2 this is the released
    softmax(T [d_2 q_1, d_1 q_2]); for other M it is our reading.

    Args:
        reliance: (M,) mean L1 norm of the logits from each modality alone.
        entropy: (M,) mean entropy of these predictions, which stands for their variance.
        seen: (M,) bool: modalities of this batch; the others get 0.
        temperature: T.
        floor: least share of entropy, in units of an equal share.
    """
    d = shares(torch.where(seen, reliance, 0))
    h = shares(torch.where(seen, entropy, 0)).clamp(min=floor / seen.sum().clamp(min=1))
    q = shares(torch.where(seen, 1 / h, 0))
    return torch.where(seen, temperature * q * (1 - d), -torch.inf).softmax(0).nan_to_num()


class ARL(Method):
    """Asymmetric representation learning (Wei et al., ICCV 2025, arXiv 2507.10203).

    The optimal weights of an ensemble are inverse to its members' variances. Reliance on a modality should thus follow
    its inverse prediction variance instead of being balanced. Every modality also predicts alone, through fusion and
    head with the others hidden. The gradient of encoder m is multiplied by 1 + k_m (see `asymmetric_coefficients`).

    Source: the released code. Reliance and entropy are means over the samples that have the modality, and over the
    places of a map. The released floor of the entropy's share, 0.3, is 0.6 of an equal share of two.

    Args:
        unimodal_weight: gamma, of the unimodal losses, summed over the modalities; 1 until `start`.
        temperature: T of the coefficients.
        entropy_floor: least share of entropy, in units of 1 / M.
        start: last epoch (from 0) before coefficients and gamma act.
        as_released: see `AsReleased`.
    """

    def __init__(
        self,
        *,
        unimodal_weight: float,
        temperature: float,
        entropy_floor: float,
        start: int,
        as_released: Mapping[str, bool],
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if not 0 < entropy_floor <= 1:
            raise UserError(
                f"method.entropy_floor={entropy_floor} is not in (0, 1], a part of an equal share"
            )
        self.unimodal_weight, self.temperature = unimodal_weight, temperature
        self.entropy_floor, self.last_plain = entropy_floor, start
        self.as_released = AsReleased(**as_released)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encode(batch)
        unimodal = self.unimodal(features)
        started = self.current_epoch > self.last_plain
        if started:
            coefficients = self.coefficients(list(unimodal.values()), batch.available)
            for k, feature in zip(coefficients, features.values(), strict=True):
                for x in tensors(feature):
                    x.register_hook(lambda gradient, k=k: (1 + k) * gradient)
        terms = {"task": self.task.loss(self.fuse(features, batch.available), batch.target).mean()}
        weight = self.unimodal_weight if started else 1.0
        for i, (m, logits) in enumerate(unimodal.items()):
            loss = self.task.loss(logits, batch.target)
            terms[m] = weight * mean_over_available(loss, batch.available[:, i])
        return terms

    @property
    def selectable_from(self) -> int:
        return self.last_plain + 1

    @torch.no_grad()
    def coefficients(self, unimodal: list[Tensor], available: Tensor) -> Tensor:
        """k (M,) from the logits (B, C, ...) of each modality alone."""
        if self.as_released.uniform:
            return torch.full((len(unimodal),), 0.5, device=self.device)
        norms = [y.abs().sum(1) for y in unimodal]
        entropies = [torch.special.entr(y.softmax(1)).sum(1) for y in unimodal]
        reliance, entropy = (
            torch.stack([x.reshape(len(x), -1).mean(1) for x in values], 1) for values in (norms, entropies)
        )
        mean_reliance, seen = mean_over_rows(reliance, available)
        mean_entropy, _ = mean_over_rows(entropy, available)
        return asymmetric_coefficients(
            mean_reliance, mean_entropy, seen, temperature=self.temperature, floor=self.entropy_floor
        )
