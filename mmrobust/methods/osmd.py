"""OSMD: restoring absent modalities and fusing what was restored, learned in one stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from mmrobust.batch import Batch
from mmrobust.combinations import all_combinations, draw_combinations
from mmrobust.errors import UserError, one_of
from mmrobust.methods.base import Features, Method, Output, mean_over_available
from mmrobust.methods.parts.adaptation import JointAdaptation
from mmrobust.methods.parts.translation import (
    CrossTranslation,
    Frozen,
    Layer,
    hallucinate,
    sources_of,
    where_rows,
    with_stream_skips,
)
from mmrobust.models.encoders import PointwiseLinear
from mmrobust.models.fusion import rows_like
from mmrobust.models.pyramid import deepest, with_deepest


class OSMD(Method):
    """One-stage modality distillation (Wei, Luo and Luo, arXiv 2309.08204), partly a reconstruction.

    The joint adaptation network restores a privileged modality n from each available u, H_{u→n}(x_u), and
    pulls the result to the real branch E_n: its features in distribution, its class probabilities sample by
    sample. The cross translation network fuses real and restored streams. Both are optimised together, so
    what is transferred is what helps the decision; the real branch learns by its own cross-entropy only.

    Certain are the two networks, their purpose and the single stage (the paper's abstract). The two losses and
    the cross-shared blocks are those of the same authors' MSH-Net code. Ours are the other wiring, the weights,
    the ramp and M modalities: what was not drawn is restored, as the mean over the drawn sources; and segmentation:
    of pyramids the two networks see the deepest maps, finer levels are the mean over the streams.

    Args:
        privileged: modalities of the training alone, e.g. [depth]; combinations of the others are served.
            null: drawn anew for every sample of a batch, so that one network serves every combination.
        privileged_mode: `joint` is the method; `pretrained_frozen` has two stages (a control): for
            `pretrain_epochs` the real branches learn alone, a frozen copy of them is the later target.
        hallucination: `pair`: every H_{u→n} is a network of its own on x_u, with the target's encoder (the
            paper's); `source`: one for each u, with a projection to each n (for two modalities of like
            encoders the same); `head`: two layers on the features of E_u.
        aggregation: `cross_translation`, or `concat` by the same layers (an ablation).
        hidden: widths of the fusion head's layers.
        alpha, beta: weights of the features' discrepancy (of one rank's samples) and the divergence, raised
            linearly from 0 over `ramp_epochs`.
        temperature: of the divergence.
        branch_weight, restored_weight: of the cross-entropies of the real and of the restored branches.
        translation_weight: of the squared gap between the logits of each stream alone and those of all.
    """

    is_source: Tensor

    def __init__(
        self,
        *,
        privileged: Sequence[str] | None,
        privileged_mode: str,
        pretrain_epochs: int,
        hallucination: str,
        aggregation: str,
        hidden: Sequence[int],
        alpha: float,
        beta: float,
        temperature: float,
        ramp_epochs: int,
        branch_weight: float,
        restored_weight: float,
        translation_weight: float,
        **base: Any,
    ) -> None:
        super().__init__(fusion=None, **base)
        one_of("method.privileged_mode", privileged_mode, ("joint", "pretrained_frozen"))
        one_of("method.hallucination", hallucination, ("pair", "source", "head"))
        one_of("method.aggregation", aggregation, ("cross_translation", "concat"))
        self.sources = sources_of(self.modalities, privileged)
        self.targets = [n for n in self.modalities if self.sources != [n]]  # what others can restore
        self.register_buffer("is_source", torch.tensor([m in self.sources for m in self.modalities]))
        self.ramp_epochs, self.translation_weight = ramp_epochs, translation_weight
        self.branch_weight, self.restored_weight = branch_weight, restored_weight
        self.from_features = hallucination == "head"

        maps, width = self.spec.task == "segmentation", max(self.widths.values())
        self.projections = nn.ModuleDict(
            {m: PointwiseLinear(w, width) if w != width else nn.Identity() for m, w in self.widths.items()}
        )
        self.joint_adaptation = JointAdaptation(
            self.modalities,
            self.sources,
            self.targets,
            head=lambda: self.task.head(width),
            hallucinate=partial(
                hallucinate,
                kind=hallucination,
                spec=self.spec,
                encoder=base["encoder"],
                width=width,
                pool=self.task.pool,
                skip_widths=getattr(next(iter(self.encoders.values())), "skip_widths", None),
            ),
            weights={"alpha": alpha, "beta": beta, "temperature": temperature},
        )
        translate = aggregation == "cross_translation"
        self.translation = CrossTranslation(self.modalities, width, maps=maps, translate=translate)
        widths = [self.translation.width, *hidden]
        self.hidden = nn.Sequential(*(Layer(a, b, maps=maps) for a, b in pairwise(widths)))
        self.head = self.task.head(widths[-1])

        self.pretrain_epochs = pretrain_epochs
        self.frozen: Frozen | None = None
        if privileged_mode == "pretrained_frozen":
            if pretrain_epochs < 1:
                raise UserError(f"method.pretrain_epochs={pretrain_epochs}, expected at least 1 epoch")
            self.frozen, self.reads_parameters = Frozen(self._branches()), True

    def _branches(self) -> list[nn.Module]:
        return [self.encoders, self.projections, self.joint_adaptation.branch_heads]

    def combinations(self) -> list[tuple[str, ...]]:
        return all_combinations(self.sources)

    def encode_modality(self, modality: str, x: Tensor) -> Features:
        own = super().encode_modality(modality, x)
        own = with_deepest(own, self.projections[modality](deepest(own)))
        features = {"own": own, "restored": {}}
        if modality in self.sources:
            hallucination = self.joint_adaptation.hallucinations[modality]
            features["restored"] = hallucination(own if self.from_features else x)
        if self.frozen is not None and self.training and modality in self.targets:
            encoders, projections, heads = (cast(nn.ModuleDict, part) for part in self.frozen)
            frozen = self.task.pool(encoders[modality](x))
            frozen = with_deepest(frozen, projections[modality](deepest(frozen)))
            features["frozen"] = frozen, heads[modality](frozen).logits
        return features

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        sources = available & self.is_source
        restored = self.joint_adaptation.restore(features, sources)
        streams = {}
        for i, m in enumerate(self.modalities):
            streams[m] = where_rows(sources[:, i], features[m]["own"], restored.get(m))
        joints = self.translation(
            {m: deepest(x) for m, x in streams.items()}
        )  # (1 + M, B, ...): from all, from each
        if not self.training:
            joints = joints[:1]
        hidden = self.hidden(joints.flatten(0, 1))  # in one pass: the statistics are those of inference, too
        fused = with_stream_skips(hidden, streams)
        predicted = self.head(fused)
        of_all, fused = (
            apply_to_collection(x, Tensor, lambda x: x[: len(available)]) for x in (predicted, fused)
        )
        alone = predicted.logits.unflatten(0, joints.shape[:2])[1:]
        return Output(of_all, fused=fused, extras={"alone": alone, "restored": restored})

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        sources = draw_combinations(
            batch.available & self.is_source, batch.index, self.seed, "draw", self.current_epoch
        )
        features = self.encode(batch)
        output = self.fuse(features, sources)
        gap = (output.extras["alone"] - output.logits).pow(2).mean(2).sum(0)  # over classes, over streams
        counted = rows_like(sources.any(1), gap) & (batch.target != self.task.ignore_index)
        adapted = self.joint_adaptation(features, output.extras["restored"], batch, sources, self.task)
        second = float(self.frozen is None or self.current_epoch >= self.pretrain_epochs)
        return {
            "task": second * mean_over_available(self.task.loss(output, batch.target), sources.any(1)),
            "translation": second * self.translation_weight * torch.where(counted, gap, 0).mean(),
            "branch": self.branch_weight * adapted["branch"],
            "restored": second * self.restored_weight * adapted["restored"],
            "adaptation": second * self.ramp * adapted["adaptation"],
        }

    @property
    def ramp(self) -> float:
        """From 0 to 1 over `ramp_epochs`, at first or, with two stages, in the second."""
        begun = self.current_epoch - (self.pretrain_epochs if self.frozen is not None else 0)
        return min(1.0, max(begun, 0) / self.ramp_epochs) if self.ramp_epochs else 1.0

    def finish_epoch(self) -> None:
        if self.frozen is not None and self.current_epoch + 1 == self.pretrain_epochs:
            self.frozen.follow(self._branches())
