"""A dataset of segmentation in a user's folder of configurations, `tests/conf`, whose labels differ in size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrobust import keyed
from mmrobust.data.base import DataModule
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Key, Sample, Split

CONF = str(Path(__file__).parent / "conf")


class Squares(DataModule):
    """Squares on a plain ground; each modality shows all of them with noise of its own, void at the border. Outside
    training, labels are larger than the inputs, and of two sizes."""

    def __init__(self, *, num_modalities: int, size: int, num_samples: int, **base: Any) -> None:
        super().__init__(root="", **base)
        self.num_modalities, self.size, self.num_samples = num_modalities, size, num_samples

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        shape = (1, self.size, self.size)
        modalities = {f"m{i + 1}": Modality("image", shape) for i in range(self.num_modalities)}
        splits = {name: SquaresSplit(name, self) for name in ("train", "val", "test")}
        return DataSpec("segmentation", 3, self.num_samples, modalities, ignore_index=255), dict(splits)


class SquaresSplit(Split):
    def __init__(self, name: str, data: Squares) -> None:
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
