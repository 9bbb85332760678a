"""A split of a dataset, whose samples are read by key (epoch and index)."""

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
    """One sample of a dataset.

    Attributes:
        inputs: tensors of their kind's dtype; None for a modality that is not on disk.
        target: a class for classification; (D,) float32 for regression; (C,) int64, 0 or 1, for multilabel; (H, W)
            int64 for segmentation. A label image has the inputs' size in the training split. In other splits its size
            may differ between samples, and predictions are resized to it.
        noise_level: noise level of each modality; 0, the default, is clean.
    """

    inputs: Mapping[str, Tensor | None]
    target: Tensor | int
    noise_level: Mapping[str, float] | None = None


class Split(Dataset, ABC):
    """A split that processes each sample in four steps: `read`, `augment`, `corrupt` (on the physical signal), `finish`.

    A subclass implements `read` and `finish`. Between the steps a sample may have any type; for noise, it must be a
    dict with an array for each modality: uint8 pixels (..., H, W) or (..., H, W, 3), magnitudes (F, T), or floats.
    Every step must be a pure function of its arguments.

    Attributes:
        ids: (N,) unique names.
        targets: (N,) classes, or (N, D) numbers or labels; empty for segmentation.
        present: (N, M) bool, the modalities on disk.
        noise: the noise of the split, which the DataModule sets; None: no noise.
        magnitudes: whether spectrograms are |STFT| before `finish` and their logarithm afterwards.
    """

    ids: Sequence[str]
    targets: Sequence[Any]
    present: np.ndarray
    noise: SplitNoise | None = None
    magnitudes: bool = True

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def read(self, key: Key) -> Any:
        """Read the raw sample from disk: uint8 pixels, waveforms, metric depth."""

    def augment(self, raw: Any, key: Key) -> Any:
        return raw

    def corrupt(self, raw: Any, key: Key) -> Any:
        """Apply the noise of the split's protocol."""
        return self.noise.corrupt(raw, key.epoch, key.index) if self.noise else raw

    @abstractmethod
    def finish(self, raw: Any, key: Key) -> Sample:
        """Convert the raw sample to tensors, such as spectrograms and normalised images."""

    def verify(self, index: int) -> None:
        """Read every file of a sample that any epoch may read. Raises: UserError: a file cannot be read."""
        self[Key(0, index)]

    def noise_levels(self, epoch: int) -> np.ndarray:
        """Noise levels of all samples and modalities, (N, M); 0 is clean."""
        return self.noise.levels(epoch) if self.noise else np.zeros(self.present.shape)

    def __getitem__(self, key: Key) -> Sample:
        sample = self.finish(self.corrupt(self.augment(self.read(key), key), key), key)
        for modality, x in sample.inputs.items():
            # The sum is fast to compute; only if it is not finite are all elements checked.
            if x is not None and not x.sum().isfinite() and not x.isfinite().all():
                raise UserError(f"its {modality} holds NaN or infinity; mend it or leave it out")
        return replace(sample, noise_level=self.noise.level(key.epoch, key.index)) if self.noise else sample


@dataclass(frozen=True, slots=True)
class Key:
    """The epoch and index of a sample. All randomness of the sample is a function of the key and a seed."""

    epoch: int
    index: int
