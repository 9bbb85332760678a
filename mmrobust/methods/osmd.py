"""OSMD: one-stage learning to restore absent modalities and to fuse restored with real features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmrobust.batch import Batch
from mmrobust.combinations import all_combinations, draw_combinations
from mmrobust.errors import UserError
from mmrobust.methods.base import Features, Method, Output, mean_over_available
from mmrobust.methods.parts.adaptation import JointAdaptation
from mmrobust.methods.parts.osmd_layouts import layout_fusion, layout_parts
from mmrobust.methods.parts.phases import Phases
from mmrobust.methods.parts.translation import CrossTranslation, fuse_late, mean_gap, sources_of, where_rows
from mmrobust.models.pyramid import deepest, with_deepest


class OSMD(Method):
    """One-stage modality distillation (Wei, Luo and Luo, arXiv 2309.08204).

    The joint adaptation network restores a privileged modality n from each available u, H_{u→n}(x_u), and pulls the
    result to the real branch E_n: the features in distribution, the class probabilities sample by sample. The cross
    translation network fuses real and restored streams. Both train together; the real branch has its own loss.

    For the two layouts see `released_parts` and `reconstructed_parts`. The ramp is ours; the weights are MSH-Net's.

    Args:
        layout: `released` (for segmentation) or `reconstruction`; null: the task decides.
        privileged: modalities that only training has, e.g. [depth]; the method serves combinations of the others.
            null: drawn anew for every sample, so that one network serves every combination.
        stages: `one` is the method. Controls: `sequential`, from the paper (real branches, transfer, fusion; each is
            frozen when the next begins), and `teacher_first` (real branches, then all other parts together).
        teacher_epochs, transfer_epochs: lengths of the first stages.
        hallucination, aggregation, hidden: see `reconstructed_parts`; null: `pair` if released, else `source`.
        bins, places: bins of the released layout's context modules; for `places` see `comparable`.
        alpha, beta, temperature: see `joint_adaptation`; its loss, per rank, rises from 0 over `ramp_epochs`.
        branch_weight, restored_weight: weights of real and restored cross-entropies; null: 0 if released, else 1.
        translation_weight: weight of the squared gap between the features from each stream alone and from all.
    """

    is_source: Tensor
    joint_adaptation: JointAdaptation
    translation: CrossTranslation
    hidden: nn.Module
    projections: nn.ModuleDict

    def __init__(
        self,
        *,
        layout: str | None,
        privileged: Sequence[str] | None,
        stages: str,
        teacher_epochs: int,
        transfer_epochs: int,
        hallucination: str | None,
        aggregation: str,
        hidden: Sequence[int],
        bins: Sequence[int],
        places: int | None,
        alpha: float,
        beta: float,
        temperature: float,
        ramp_epochs: int,
        branch_weight: float,
        restored_weight: float | None,
        translation_weight: float,
        **base: Any,
    ) -> None:
        spec, encoder = base["spec"], base["encoder"]
        sources = sources_of(tuple(spec.modalities), privileged)
        targets = [n for n in spec.modalities if sources != [n]]  # modalities that others can restore
        keys: Any = {"hallucination": hallucination, "aggregation": aggregation, "bins": bins}
        super().__init__(
            fusion=layout_fusion(layout, spec, sources, targets, encoder=encoder, **keys), **base
        )
        self.sources, self.targets, self.released = sources, targets, hasattr(self, "fusion")
        self.register_buffer("is_source", torch.tensor([m in sources for m in self.modalities]))
        self.branch_weight, self.translation_weight = branch_weight, translation_weight
        self.restored_weight = float(not self.released) if restored_weight is None else restored_weight
        weights = {"alpha": alpha, "beta": beta, "temperature": temperature}
        adapt = partial(JointAdaptation, self.modalities, sources, targets, places=places, weights=weights)
        for name, part in layout_parts(self, adapt, encoder=encoder, hidden=hidden, **keys).items():
            self.add_module(name, part)
        self.from_features, self.reads_parameters = hallucination == "head", stages != "one"
        self.phases = Phases(stages, (teacher_epochs, transfer_epochs), ramp_epochs)
        if self.from_features and self.reads_parameters:
            raise UserError("method.hallucination=head restores from what later stages change; take pair")

    @property
    def selectable_from(self) -> int:
        return self.phases.all_begun

    def combinations(self) -> list[tuple[str, ...]]:
        return all_combinations(self.sources)

    def encode_modality(self, modality: str, x: Tensor) -> Features:
        own, restored = super().encode_modality(modality, x), {}
        if not self.released:
            own = with_deepest(own, self.projections[modality](deepest(own)))
        if modality in self.sources:
            restored = self.joint_adaptation.hallucinations[modality](own if self.from_features else x)
        return {"own": own, "restored": restored}

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        sources = available & self.is_source
        restored = self.joint_adaptation.restore(features, sources)
        streams = {
            m: where_rows(sources[:, i], features[m]["own"], restored.get(m))
            for i, m in enumerate(self.modalities)
        }
        if self.released:
            fused, gap = self.fusion(streams)
            predicted = self.head(fused)
        else:
            parts = self.translation, self.hidden, self.head
            predicted, fused, gap = fuse_late(*parts, streams, training=self.training)
        return Output(predicted, fused=fused, extras={"gap": gap, "restored": restored})

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        features, epoch = self.encode(batch), self.current_epoch
        given = batch.available & self.is_source
        sources = draw_combinations(given, batch.index, self.seed, "draw", epoch)
        output = self.fuse(features, sources)
        task, rows = self.task.loss(output, batch.target), sources.any(1)
        gap = mean_gap(output.extras["gap"], rows, batch.target != self.task.ignore_index)
        adapted = self.joint_adaptation(features, output.extras["restored"], batch, sources, self.task)
        terms = {
            "task": mean_over_available(task, rows),
            "translation": self.translation_weight * gap,
            "branch": self.branch_weight * adapted["branch"],
            "restored": self.restored_weight * adapted["restored"],
            "adaptation": self.phases.ramp(epoch) * adapted["adaptation"],
        }
        return {name: float(self.phases.acts(name, epoch)) * x for name, x in terms.items()}

    def resting(self) -> list[nn.Module]:
        joint, chains = self.joint_adaptation, [self.encoders, *([] if self.released else [self.projections])]
        later = [part for part in self.children() if part not in (*chains, joint)]
        later += [x[m] for x in chains for m in self.modalities if m not in self.targets]
        groups: dict[str, list[nn.Module]] = {
            "branch": [*(x[n] for x in chains for n in self.targets), joint.branch_heads, joint.branch_views],
            "adaptation": [joint.hallucinations, joint.restored_heads, joint.restored_views],
            "task": later,
        }
        return self.phases.resting(groups, self.current_epoch)
