"""Noise where the signal is physical: protocols as pure functions of a seed and a sample.

A protocol says how noisy each modality of a sample is, its level (0 is clean), and what that does to the signal.
Levels and noise hang on (`noise.seed`, split, epoch, sample, modality) alone, never on workers or ranks.

Units are those of 8-bit images: pixels are taken as they are, everything else is mapped from the sample's own
smallest and largest value to [0, 255] and back, spectrograms as magnitudes |STFT|.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmrobust import keyed

Quirks = Mapping[str, bool]  # of the released code, by name
FLOOR = 1e-7  # what `audio.log` adds to magnitudes before their logarithm


@dataclass(frozen=True)
class Clean:
    """No noise."""

    def levels(self, count: int, modality: str, epoch: int, *salts: int | str) -> np.ndarray:
        """How noisy a modality is in each of a split's samples: (N,), 0 is clean.

        Args:
            count: N.
            modality: its name.
            epoch: 0 outside of training.
            salts: `noise.seed`, name of the split.
        """
        return np.zeros(count)

    def apply(self, x: np.ndarray, level: float, rng: np.random.Generator, magnitude: bool) -> np.ndarray:
        """The noisy signal, for a level above 0; `magnitude`: x is an |STFT|. Not in place."""
        return x


@dataclass(frozen=True)
class Gaussian(Clean):
    """White noise of standard deviation 10 `level`, in each modality of a sample with `probability`.

    The test of QMF (Zhang et al., ICML 2023) as UDML's released code runs it.

    Args:
        level: in [0, 11]; papers report 0, 5 and 10.
        probability: that a modality of a sample is noisy, each independently.
        as_released: `wrap_negative`, values below 0 wrap around to 255 and down; `same_pattern`, all samples get
            the same field, NumPy's after seed 0.
    """

    level: float
    probability: float
    as_released: Quirks

    def levels(self, count: int, modality: str, epoch: int, *salts: int | str) -> np.ndarray:
        return self.level * gate(count, self.probability, modality, epoch, *salts)

    def apply(self, x: np.ndarray, level: float, rng: np.random.Generator, magnitude: bool) -> np.ndarray:
        noise = plane(x, rng, self.as_released)
        return in_pixel_units(x, lambda p: p + 10 * level * noise, self.as_released["wrap_negative"])


@dataclass(frozen=True)
class Salt(Clean):
    """Salt and pepper: `level` percent of the pixels, half of them black and half white, in each modality of a
    sample with `probability`.

    The test of QMF. UDML's released code replaces `density` of the pixels, whatever the level, but in `level`
    percent of the chosen samples only, so that hardly any is noisy; `as_released.level_is_probability` does that.

    Args:
        level: in [0, 11]; papers report 0, 5 and 10.
        probability: that a modality of a sample is noisy, each independently.
        density: share of the pixels with `level_is_probability`.
        as_released: `level_is_probability`, see above.
    """

    level: float
    probability: float
    density: float
    as_released: Quirks

    def levels(self, count: int, modality: str, epoch: int, *salts: int | str) -> np.ndarray:
        share = self.level / 100 if self.as_released["level_is_probability"] else 1
        return self.level * gate(count, share * self.probability, modality, epoch, *salts)

    def apply(self, x: np.ndarray, level: float, rng: np.random.Generator, magnitude: bool) -> np.ndarray:
        share = self.density if self.as_released["level_is_probability"] else level / 100
        draw = rng.random(plane_shape(x))
        return in_pixel_units(x, lambda p: np.where(draw < share / 2, 0, np.where(draw < share, 255, p)))


@dataclass(frozen=True)
class UDMLv1(Clean):
    """UDML's training noise (Wei et al., CVPR 2026 Findings; released code, first version).

    Every sample keeps its levels for the whole run, drawn from 1 to 11 for each modality, 1 being clean (here 0,
    so levels are 0 or 2 to 11), and a random half of the samples is clean in all modalities. Pixels get white
    noise of standard deviation level², the logarithm of magnitudes that of standard deviation level; at level 11
    the signal is replaced by the noise, times 25.5. Both are clipped at 255 and, pixels and magnitudes, at 0 (the
    released code clips above alone). The noise itself is drawn anew in every epoch.

    Args:
        start: share of the epochs that come first and stay clean.
        epochs: how many there are.
        as_released: `wrap_negative` and `same_pattern`, see `Gaussian`.
    """

    start: float
    epochs: int
    as_released: Quirks

    def levels(self, count: int, modality: str, epoch: int, *salts: int | str) -> np.ndarray:
        if epoch < self.start * self.epochs:
            return np.zeros(count)
        index = np.arange(count)
        drawn = 1 + np.floor(11 * keyed.uniform(index, *salts, "level", modality))
        drawn[np.argsort(keyed.uniform(index, *salts, "clean"))[: count // 2]] = 1
        return np.where(drawn == 1, 0, drawn)

    def apply(self, x: np.ndarray, level: float, rng: np.random.Generator, magnitude: bool) -> np.ndarray:
        noise = plane(x, rng, self.as_released)

        def change(signal: np.ndarray, std: float) -> np.ndarray:
            return signal + std * noise if level < 11 else std * noise * 25.5

        if not magnitude:
            wrap = self.as_released["wrap_negative"]
            return in_pixel_units(x, lambda pixels: change(pixels, level**2), wrap)
        logarithm = change(
            np.log(x.astype(np.float64) + FLOOR), level
        )  # float64 holds e^255, float32 does not
        return np.maximum(np.exp(np.minimum(logarithm, 255)) - FLOOR, 0)


@dataclass(frozen=True)
class UDMLv2(Clean):
    """UDML's training noise (released code, revised version): in every epoch anew, each modality of a sample is
    noisy with `probability`, at a level from 0 to 11; standard deviation 10 level.

    Args:
        start: share of the epochs that come first and stay clean.
        epochs: how many there are.
        probability: that a modality of a sample is noisy, each independently.
        as_released: `wrap_negative` and `same_pattern`, see `Gaussian`.
    """

    start: float
    epochs: int
    probability: float
    as_released: Quirks

    def levels(self, count: int, modality: str, epoch: int, *salts: int | str) -> np.ndarray:
        if epoch < self.start * self.epochs:
            return np.zeros(count)
        drawn = np.floor(12 * keyed.uniform(np.arange(count), *salts, "level", epoch, modality))
        return drawn * gate(count, self.probability, modality, epoch, *salts)

    def apply(self, x: np.ndarray, level: float, rng: np.random.Generator, magnitude: bool) -> np.ndarray:
        return Gaussian(level, self.probability, self.as_released).apply(x, level, rng, magnitude)


def gate(count: int, probability: float, modality: str, epoch: int, *salts: int | str) -> np.ndarray:
    """Whether each sample is noisy: (N,) bool."""
    return keyed.uniform(np.arange(count), *salts, "noisy", epoch, modality) < probability


def plane_shape(x: np.ndarray) -> tuple[int, ...]:
    """Of the noise: the colours of pixels (..., H, W, 3) share theirs, (..., H, W, 1)."""
    return (*x.shape[:-1], 1) if x.dtype == np.uint8 and x.ndim > 2 and x.shape[-1] == 3 else x.shape


def plane(x: np.ndarray, rng: np.random.Generator, as_released: Quirks) -> np.ndarray:
    """Standard normal numbers for x."""
    source = np.random.RandomState(0) if as_released["same_pattern"] else rng
    return source.standard_normal(plane_shape(x))


def in_pixel_units(
    x: np.ndarray, change: Callable[[np.ndarray], np.ndarray], wrap_negative: bool = False
) -> np.ndarray:
    """Change x in 8-bit units and clip it to [0, 255] there; same shape and type. A constant x that is not made
    of pixels has no range and stays.

    `wrap_negative` clips above alone and casts to 8 bits as released, so that -1.5 becomes 255 and -30 becomes 226.
    """
    low, high = (0.0, 255.0) if x.dtype == np.uint8 else (float(x.min()), float(x.max()))
    if low == high:
        return x
    unit = (high - low) / 255
    changed = change((x.astype(np.float64) - low) / unit)
    if wrap_negative:
        pixels: Any = np.minimum(changed, 255).astype(np.int64).astype(np.uint8)
    else:
        pixels = np.clip(changed, 0, 255)
    return np.rint(pixels).astype(x.dtype) if x.dtype == np.uint8 else (low + unit * pixels).astype(x.dtype)


@dataclass(eq=False)
class SplitNoise:
    """A protocol at work on one split.

    Args:
        protocol: the noise protocol.
        seed: `noise.seed`.
        split: name of the split; part of every seed, so that two splits never share noise.
        count: N, the number of samples.
        modalities: the M modality names.
        magnitudes: modalities that are |STFT| before `finish`.
        noiseless: modalities without noise, such as text.
    """

    protocol: Clean
    seed: int
    split: str
    count: int
    modalities: Sequence[str]
    magnitudes: frozenset[str]
    noiseless: frozenset[str] = frozenset()
    # Cache: the last requested epoch and its levels.
    drawn: tuple[int, np.ndarray] | None = field(default=None, repr=False)

    def levels(self, epoch: int) -> np.ndarray:
        """Noise levels of all samples in an epoch, (N, M) float64."""
        if self.drawn is None or self.drawn[0] != epoch:
            columns = [
                np.zeros(self.count)
                if m in self.noiseless
                else self.protocol.levels(self.count, m, epoch, self.seed, self.split)
                for m in self.modalities
            ]
            self.drawn = epoch, np.stack(columns, 1)
        return self.drawn[1]

    def level(self, epoch: int, index: int) -> dict[str, float]:
        """Noise levels of one sample in an epoch, by modality."""
        return dict(zip(self.modalities, self.levels(epoch)[index].tolist(), strict=True))

    def corrupt(self, raw: Mapping[str, Any], epoch: int, index: int) -> dict[str, Any]:
        """Return `raw` with noise on its modalities' arrays; those that are None stay None."""
        noisy = dict(raw)
        for m, level in self.level(epoch, index).items():
            if level and raw[m] is not None:
                rng = np.random.default_rng(keyed.seed_of(self.seed, "noise", self.split, epoch, index, m))
                noisy[m] = self.protocol.apply(raw[m], level, rng, m in self.magnitudes)
        return noisy
