"""AV-MNIST: a handwritten digit (MNIST) and the same digit spoken (Free Spoken Digit Dataset).

Both halves are real; nature does not pair them, so a pair is drawn among the images and the recordings of
one digit and of one split. Noise keeps either half from sufficing alone.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from mmrobust import keyed
from mmrobust.data.audio import log_spectrogram, read_audio
from mmrobust.data.base import DataModule, DataSpec, Key, Modality, Sample, Split, hold_out
from mmrobust.errors import UserError

RATE = 8000  # Hz, of all recordings
OFFICIAL_TEST = 5  # recordings 0-4 of every digit and speaker are FSDD's test set
FSDD = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip"
RAW, RECORDINGS = "MNIST/raw", "free-spoken-digit-dataset/recordings"  # where downloads go, under the root
NOISE = 1 << 20  # noise is a slice of one long array: 30 times cheaper than a generator for every sample


@dataclass(frozen=True)
class Pool:
    """The images, or the recordings, of one split."""

    data: np.ndarray  # (N, 28, 28) uint8 or (N, T) float32 with unit power
    targets: np.ndarray  # (N,) digits
    names: np.ndarray  # (N,)

    def __getitem__(self, rows: np.ndarray | slice) -> Pool:
        return Pool(self.data[rows], self.targets[rows], self.names[rows])


def deal(wanted: np.ndarray, targets: np.ndarray, *salts: int | str) -> np.ndarray:
    """For each digit of `wanted` (N,) a row of `targets` with that digit, shuffled by the salts: (N,).

    Dealt like cards: no row comes a second time before every row of its digit came once.
    """
    rows = np.empty(len(wanted), dtype=np.int64)
    for digit in np.unique(wanted):
        cards = np.flatnonzero(targets == digit)
        cards = cards[np.argsort(keyed.uniform(cards, *salts))]
        takers = np.flatnonzero(wanted == digit)
        rows[takers] = np.resize(cards, len(takers))
    return rows


class Pairs(Split):
    """One split. `anchors` are the rows of the pool that stands firm, "image" or "audio"; each meets a
    partner of the other pool: another one every epoch if `redraw`, else always the same."""

    def __init__(
        self, name: str, pools: dict[str, Pool], anchor: str, anchors: np.ndarray, *, redraw: bool, seed: int,
        image_noise: float, audio_snr: float | None, n_fft: int, hop: int, resolution: Sequence[int],
    ) -> None:  # fmt: skip
        self.name, self.pools, self.anchor, self.anchors = name, pools, anchor, anchors
        self.partner = "image" if anchor == "audio" else "audio"
        self.redraw, self.seed, self.image_noise, self.audio_snr = redraw, seed, image_noise, audio_snr
        self.n_fft, self.hop, self.resolution = n_fft, hop, tuple(resolution)
        self.targets = pools[anchor].targets[anchors]
        self.dealt = (0, self.partners(0))
        names = pools[anchor].names[anchors]
        if redraw:  # an anchor may come more than once (data.pairs above the number of images)
            self.ids = [f"{name}#{i}" for i, name in enumerate(names)]
        else:
            self.ids = [f"{a}+{b}" for a, b in zip(names, pools[self.partner].names[self.dealt[1]], strict=True)]
        self.present = np.ones((len(self.ids), 2), dtype=bool)
        generator = np.random.default_rng(keyed.seed_of(seed, "noise", name))
        self.noise = generator.standard_normal(NOISE, dtype=np.float32)
