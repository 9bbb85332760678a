"""Pairs of an image and a sound that nature does not pair, drawn among those of one class, with noise on both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mmrobust import keyed
from mmrobust.data.families.digits import Pool
from mmrobust.data.files.audio import log, magnitude
from mmrobust.data.split import Key, Sample, Split

NOISE = 1 << 20  # noise is a slice of one long array: a generator for every sample would cost 0.2 ms


@dataclass(frozen=True)
class Signal:
    """From pixels and waveforms to inputs; see conf/data/avmnist.yaml."""

    image_noise: float
    audio_snr: float | None
    n_fft: int
    hop: int
    resolution: tuple[int, int]

    def magnitude(self, wave: np.ndarray) -> np.ndarray:
        """|STFT| of (T,): (F, T') float32."""
        return magnitude(torch.from_numpy(wave).float(), n_fft=self.n_fft, hop=self.hop).numpy()

    def pixels(self, image: np.ndarray) -> Tensor:
        """(H, W) uint8 -> (1, H, W) in [-1, 1]."""
        return torch.from_numpy(image).float()[None] / 127.5 - 1

    def spectrogram(self, magnitude: np.ndarray) -> Tensor:
        """(F, T') -> (1, *resolution), logarithmic, with mean 0 and standard deviation 1."""
        x = adaptive_avg_pool2d(log(torch.from_numpy(magnitude))[None], self.resolution)
        return ((x - x.mean()) / (x.std() + 1e-6)).float()


def deal(wanted: np.ndarray, targets: np.ndarray, *salts: int | str) -> np.ndarray:
    """For every digit of `wanted` (N,), a row of `targets` that holds the same digit: (N,).

    Dealt like shuffled cards: no row comes a second time before all rows of its digit came once.
    """
    rows = np.empty(len(wanted), dtype=np.int64)
    for digit in np.unique(wanted):
        cards = np.flatnonzero(targets == digit)
        takers = np.flatnonzero(wanted == digit)
        rows[takers] = np.resize(cards[np.argsort(keyed.uniform(cards, *salts))], len(takers))
    return rows


@dataclass(eq=False)
class Pairs(Split):
    """Every anchor with a partner of the other pool, and noise: new ones each epoch if `redraw`, else always
    the same."""

    name: str
    pools: dict[str, Pool]  # "image" and "audio"
    anchor: str  # one of the two
    anchors: np.ndarray  # (N,) rows of its pool
    redraw: bool
    seed: int
    signal: Signal

    def __post_init__(self) -> None:
        self.partner = "image" if self.anchor == "audio" else "audio"
        self.digits = self.pools[self.anchor].targets[self.anchors]
        self.targets = self.digits.tolist()
        self.present = np.ones((len(self.digits), 2), dtype=bool)
        self.static = np.random.default_rng(keyed.seed_of(self.seed, self.name)).standard_normal(
            NOISE, "float32"
        )
        self.dealt = (-1, self.anchors)  # the epoch asked for last, and its partners
        partners = self.pools[self.partner].names[self.rows(0)[self.partner]]
        # A redrawn pair has no fixed partner to be named after, and its anchor may come more than once.
        seconds = range(len(self.digits)) if self.redraw else partners
        self.ids = [
            f"{a}+{b}" for a, b in zip(self.pools[self.anchor].names[self.anchors], seconds, strict=True)
        ]

    def rows(self, epoch: int) -> dict[str, np.ndarray]:
        """The pairs of an epoch: (N,) rows of either pool."""
        epoch = epoch if self.redraw else 0
        if self.dealt[0] != epoch:
            self.dealt = (
                epoch,
                deal(self.digits, self.pools[self.partner].targets, self.seed, self.name, epoch),
            )
        return {self.anchor: self.anchors, self.partner: self.dealt[1]}

    def read(self, key: Key) -> dict[str, np.ndarray]:
        rows = self.rows(key.epoch)
        return {modality: pool.data[rows[modality][key.index]] for modality, pool in self.pools.items()}

    def augment(self, raw: dict[str, np.ndarray], key: Key) -> dict[str, np.ndarray]:
        """`image` (28, 28) uint8 and `audio`, the |STFT| (F, T) float32, both with the noise of `disturb`."""
        image, audio = self.disturb(raw, key)
        return {"image": image.astype(np.uint8), "audio": self.signal.magnitude(audio)}

    def disturb(self, raw: dict[str, np.ndarray], key: Key) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and waveform with the noise that makes this dataset hard, whatever `noise` adds."""
        image, audio = raw["image"], raw["audio"]
        draws = keyed.uniforms(2, self.seed, self.name, key.epoch if self.redraw else 0, key.index)
        starts = (draws * (NOISE - np.array([image.size, audio.size]))).astype(int)
        grain, hiss = (self.static[i : i + x.size] for i, x in zip(starts, (image, audio), strict=True))
        image = np.clip(np.rint(image + self.signal.image_noise * grain.reshape(image.shape)), 0, 255)
        if self.signal.audio_snr is not None:
            audio = audio + 10 ** (-self.signal.audio_snr / 20) * hiss
        return image, audio

    def finish(self, raw: dict[str, np.ndarray], key: Key) -> Sample:
        """`image` (1, 28, 28) in [-1, 1]; `audio` (1, *resolution) with mean 0 and standard deviation 1."""
        inputs = {"image": self.signal.pixels(raw["image"]), "audio": self.signal.spectrogram(raw["audio"])}
        return Sample(inputs, self.targets[key.index])
