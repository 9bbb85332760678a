"""Toy methods shaped like the hardest real ones, and a toy segmentation dataset: they prove the seam."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrobust import keyed
from mmrobust.batch import Batch
from mmrobust.combinations import all_combinations, combination_code, combination_masks, combination_name
from mmrobust.data.base import DataModule
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Key, Sample, Split
from mmrobust.evaluation.combinations import Results
from mmrobust.methods.base import Features, Method, Output, Prediction, stacked_logits
from mmrobust.methods.teacher import Teacher
from mmrobust.models.fusion import masked, mean_over
from mmrobust.models.pyramid import by_level, deepest, with_deepest


class TeacherShaped(Method):
    """Like MMANet: a teacher's run made first, an auxiliary head, weak combinations mined by validation."""

    weak: Tensor

    def __init__(self, *, teacher: Mapping[str, Any], distillation_weight: float, **base: Any) -> None:
        super().__init__(**base)
        self.teacher = Teacher(teacher["run"], self.spec) if teacher["run"] else None
        self.distillation_weight = distillation_weight
        self.regulariser = self.task.head(self.width)
        self.register_buffer("weak", torch.zeros(2 ** len(self.modalities), dtype=torch.bool))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        drawn = self.draw(batch)
        output = self.fuse(self.encode(batch), drawn)
        guide = self.teacher(batch).logits if self.teacher else output.logits.detach()
        weak = self.weak[combination_code(drawn)]
        return {
            "task": self.task.loss(output, batch.target).mean(),
            "distillation": self.distillation_weight * F.mse_loss(output.logits, guide),
            "weak": (weak * self.task.loss(self.regulariser(output.fused), batch.target)).mean(),
        }

    def observe(self, results: Results) -> None:
        scores = [row["metrics"][results.primary] if row else None for row in results.combinations.values()]
        combinations = all_combinations(self.modalities)
        codes = combination_code(combination_masks(combinations, self.modalities))
        lowest = min(range(len(combinations) - 1), key=lambda i: scores[i] or 0.0)
        self.weak.zero_()
        self.weak[codes[lowest]] = True


class HallucinationShaped(Method):
    """Like OSMD: the last modality is privileged; at inference a hallucination from each other one stands in."""

    def __init__(self, **base: Any) -> None:
        super().__init__(**base)
        self.privileged = self.modalities[-1]
        source = {m: self.widths[m] for m in self.modalities if m != self.privileged}
        width = self.widths[self.privileged]
        self.hallucinate = nn.ModuleDict({m: PointwiseMLP(w, width) for m, w in source.items()})
        self.privileged_head = self.task.head(width)

    def encode_modality(self, modality: str, x: Tensor) -> Features:
        own = super().encode_modality(modality, x)
        if modality not in self.hallucinate:
            return {"own": own, "hallucinated": own}
        return {"own": own, "hallucinated": with_deepest(own, self.hallucinate[modality](deepest(own)))}

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        own = {m: f["own"] for m, f in features.items()}
        sources = [i for i, m in enumerate(self.modalities) if m != self.privileged]
        hallucinated = {m: features[m]["hallucinated"] for m in self.hallucinate}
        present = available[:, sources]
        own[self.privileged] = by_level(lambda maps: mean_over(maps, present), hallucinated)
        seen = available.clone()
        seen[:, self.modalities.index(self.privileged)] = present.any(1)
        return Output(self.head(self.fusion(own, seen)), extras={"restored": own[self.privileged]})

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encode(batch)
        output = self.fuse(features, self.draw(batch))
        real = features[self.privileged]["own"]
        there = batch.available[:, self.modalities.index(self.privileged)]
        gap = (deepest(output.extras["restored"]) - deepest(real).detach()).flatten(1).pow(2).mean(1)
        own = self.task.loss(self.privileged_head(real), batch.target)
        return {
            "task": self.task.loss(output, batch.target).mean(),
            "transfer": torch.where(there, gap, 0).mean(),
            "privileged": torch.where(there, own, 0).mean(),
        }

    def combinations(self) -> list[tuple[str, ...]]:
        return [c for c in all_combinations(self.modalities) if self.privileged not in c]


class PointwiseMLP(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        from mmrobust.models.encoders import PointwiseLinear

        self.first, self.second = PointwiseLinear(width, out), PointwiseLinear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class AlternatingShaped(Method):
    """Like MLA: one optimiser update for each modality through a shared head, then one for all."""

    def __init__(self, **base: Any) -> None:
        super().__init__(fusion=None, **base)
        self.shared_head = self.task.head(next(iter(self.widths.values())))

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        unimodal = {m: self.shared_head(x) for m, x in features.items()}
        logits = stacked_logits(unimodal)
        present = available.reshape(*available.shape, *[1] * (logits.dim() - 2))
        weights = present / present.sum(1, keepdim=True)
        return Output(Prediction(torch.where(present, logits, 0).mul(weights).sum(1)), unimodal)

    def updates(self, batch: Batch) -> Iterator[dict[str, Tensor]]:
        for i, m in enumerate(self.modalities):
            loss = self.task.loss(self.shared_head(self.encode(batch)[m]), batch.target)
            yield {m: torch.where(batch.available[:, i], loss, 0).mean()}
        yield {"all": self.task.loss(self(batch), batch.target).mean()}


class StagewiseShaped(Method):
    """Like ESANet: the first modality's trunk carries the features fused after every stage."""

    def __init__(self, *, stages: int, channels: int, **base: Any) -> None:
        super().__init__(fusion=None, **base)
        del self.encoders  # the trunks are our own
        self.stems = nn.ModuleDict(
            {
                m: nn.Conv2d(x.shape[0], channels, 3, stride=2, padding=1)
                for m, x in self.spec.modalities.items()
            }
        )
        self.trunks = nn.ModuleDict(
            {
                m: nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(stages))
                for m in self.modalities
            }
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(stages))
        self.head = self.task.head(channels, skip_widths=())

    def encode_modality(self, modality: str, x: Tensor) -> Features:
        levels = [self.stems[modality](x).relu()]
        if modality != self.modalities[0]:  # the first one's trunk needs the others, so it belongs to fuse
            for stage in self.trunks[modality]:
                levels.append(stage(levels[-1]).relu())
        return levels

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        first, *others = self.modalities
        carried = features[first][0]
        for level in range(len(self.norms) + 1):
            streams = {first: carried} | {m: features[m][level] for m in others}
            fused = torch.stack(masked(streams, available)).sum(0)
            if level < len(self.norms):
                carried = self.norms[level](self.trunks[first][level](fused)).relu()
        return Output(self.head(self.task.pool(fused)))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {
            "task": self.task.loss(
                self.fuse(self.encode(batch), self.draw(batch)).logits, batch.target
            ).mean()
        }


class ToySegmentation(DataModule):
    """Squares on a plain ground; each modality shows all of them with noise of its own, void at the border. Outside
    training, labels are larger than the inputs, and of two sizes."""

    def __init__(self, *, num_modalities: int, size: int, num_samples: int, **base: Any) -> None:
        super().__init__(root="", **base)
        self.num_modalities, self.size, self.num_samples = num_modalities, size, num_samples

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        shape = (1, self.size, self.size)
        modalities = {f"m{i + 1}": Modality("image", shape) for i in range(self.num_modalities)}
        splits = {name: Squares(name, self) for name in ("train", "val", "test")}
        return DataSpec("segmentation", 3, self.num_samples, modalities, ignore_index=255), dict(splits)


class Squares(Split):
    def __init__(self, name: str, data: ToySegmentation) -> None:
        self.name, self.size, self.m = name, data.size, data.num_modalities
        self.ids = [f"{name} {i}" for i in range(data.num_samples)]
        self.targets: list[int] = []
        self.present = np.ones((data.num_samples, self.m), dtype=bool)

    def read(self, key: Key) -> dict[str, np.ndarray]:
        x, y, kind = keyed.uniforms(3, self.name, key.index)
        label = np.zeros((self.size, self.size), dtype=np.int64)
        left, top, side = int(x * self.size / 2), int(y * self.size / 2), self.size // 2
        label[top : top + side, left : left + side] = 1 + int(kind * 2)
        label[0] = 255
        rng = np.random.default_rng(keyed.seed_of(self.name, key.index))
        shown = np.where(label == 255, 0, label).astype(np.float32)[None]
        noisy = {
            f"m{i + 1}": shown + 0.3 * rng.standard_normal(shown.shape, "float32") for i in range(self.m)
        }
        return {"label": label, **noisy}

    def finish(self, raw: dict[str, np.ndarray], key: Key) -> Sample:
        inputs = {m: torch.from_numpy(x) for m, x in raw.items() if m != "label"}
        label = raw["label"]
        if self.name != "train":
            label = label.repeat(2, 0).repeat(2 + key.index % 2, 1)
        return Sample(inputs, torch.from_numpy(label))


def weak_names(method: TeacherShaped) -> list[str]:
    combinations = all_combinations(method.modalities)
    codes = combination_code(combination_masks(combinations, method.modalities))
    return [combination_name(c) for c, code in zip(combinations, codes, strict=True) if method.weak[code]]
