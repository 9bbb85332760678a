"""One split of a dataset: keyed samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from mmrobust.data.kinds import KINDS as KINDS
from mmrobust.data.noise import SplitNoise
from mmrobust.errors import UserError


@dataclass
class Sample:
    """One sample as a dataset gives it: inputs of their kind's dtype, None where a modality is not on disk.

    The target is a class, in a regression (D,) float32, of several labels (C,) int64, 0 or 1, and in segmentation (H, W)
    int64. In the training split it has the inputs' size; elsewhere its own, which
    may differ between samples: predictions are resized to it.
    """

    inputs: Mapping[str, Tensor | None]
    target: Tensor | int
    noise_level: Mapping[str, float] | None = None  # 0 (the default) is clean


class Split(Dataset, ABC):
    """One split: `read` from disk, `augment`, `corrupt` where the signal is still physical, `finish`.

    A subclass implements `read` and `finish`. In between a sample is what the dataset likes; for noise, a dict
    that holds an array for each modality: uint8 pixels (..., H, W) or (..., H, W, 3), magnitudes (F, T), floats.
    Every step must be a pure function of its arguments.
    """

    ids: Sequence[str]  # (N,) unique names
    targets: Sequence[Any]  # (N,) classes, or (N, D) numbers or labels; empty for segmentation
    present: np.ndarray  # (N, M) bool: what lies on disk
    noise: SplitNoise | None = None  # none at all if null; set by the DataModule
    magnitudes: bool = True  # whether spectrograms are |STFT| before `finish`, their logarithm after

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def read(self, key: Key) -> Any:
        """The raw sample: uint8 pixels, waveforms, metric depth."""

    def augment(self, raw: Any, key: Key) -> Any:
        return raw

    def corrupt(self, raw: Any, key: Key) -> Any:
        """The noise of the split's protocol."""
        return self.noise.corrupt(raw, key.epoch, key.index) if self.noise else raw

    @abstractmethod
    def finish(self, raw: Any, key: Key) -> Sample:
        """Tensors: spectrograms, normalised images."""

    def verify(self, index: int) -> None:
        """Read all that any epoch may read of a sample; raises UserError if that fails."""
        self[Key(0, index)]

    def noise_levels(self, epoch: int) -> np.ndarray:
        """Of every sample and modality: (N, M), 0 is clean."""
        return self.noise.levels(epoch) if self.noise else np.zeros(self.present.shape)

    def __getitem__(self, key: Key) -> Sample:
        sample = self.finish(self.corrupt(self.augment(self.read(key), key), key), key)
        for modality, x in sample.inputs.items():
            # A sum is quick, and finite as a rule only if all of it is.
            if x is not None and not x.sum().isfinite() and not x.isfinite().all():
                raise UserError(f"its {modality} holds NaN or infinity; mend it or leave it out")
        return replace(sample, noise_level=self.noise.level(key.epoch, key.index)) if self.noise else sample


@dataclass(frozen=True, slots=True)
class Key:
    """Which sample, and in which epoch: all randomness of a sample is a function of it (and a seed)."""

    epoch: int
    index: int
