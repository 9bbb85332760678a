"""AV-MNIST: a handwritten digit (MNIST) and the same digit spoken (Free Spoken Digit Dataset, FSDD).

Both halves are real; nature does not pair them, so a pair is drawn among the images and the recordings of
one digit and one split. Noise on pixels and waveforms keeps either half from sufficing alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from mmrobust import keyed
from mmrobust.data.base import DataModule, hold_out
from mmrobust.data.families.digits import RATE, Pool, ensure, read_images, read_recordings
from mmrobust.data.files.audio import log, magnitude
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Key, Sample, Split
from mmrobust.errors import UserError
from mmrobust.files import short_hash

NOISE = 1 << 20  # noise is a slice of one long array: a generator for every sample would cost 0.2 ms


@dataclass(frozen=True)
class Signal:
    """From pixels and waveforms to inputs; see conf/data/avmnist.yaml."""

    image_noise: float
    audio_snr: float | None
    n_fft: int
    hop: int
    resolution: tuple[int, int]


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
        wave = torch.from_numpy(audio).float()
        spectrogram = magnitude(wave, n_fft=self.signal.n_fft, hop=self.signal.hop)
        return {"image": image.astype(np.uint8), "audio": spectrogram.numpy()}

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
        image = torch.from_numpy(raw["image"]).float()[None]
        spectrogram = log(torch.from_numpy(raw["audio"]))[None]
        spectrogram = adaptive_avg_pool2d(spectrogram, self.signal.resolution)
        spectrogram = (spectrogram - spectrogram.mean()) / (spectrogram.std() + 1e-6)
        return Sample({"image": image / 127.5 - 1, "audio": spectrogram.float()}, self.targets[key.index])


class AVMNIST(DataModule):
    """Official splits: MNIST's 60,000 training images and FSDD's recordings 5-49 of every digit and speaker
    against 10,000 images and recordings 0-4; the last twelfth of the training images serves validation.
    The keys are explained in conf/data/avmnist.yaml."""

    def __init__(
        self,
        *,
        root: str,
        download: bool,
        validation: float,
        fixed_images: int,
        pairs: int | None,
        speaker: str | None,
        image_noise: float,
        audio_snr: float | None,
        seconds: float,
        n_fft: int,
        hop: int,
        resolution: tuple[int, int],
        **base: Any,
    ) -> None:
        super().__init__(root=root, **base)
        self.folder = Path(root)
        self.download, self.validation, self.fixed_images = download, validation, fixed_images
        self.pairs, self.speaker, self.seconds = pairs, speaker, seconds
        self.signal = Signal(image_noise, audio_snr, n_fft, hop, (resolution[0], resolution[1]))

    @property
    def fingerprint(self) -> str:
        """Other noise makes other data."""
        text = f"{super().fingerprint} {self.signal.image_noise} {self.signal.audio_snr}"
        return short_hash(text)

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        pools = self.pools()
        splits: dict[str, Split] = {}
        for name, pool in pools.items():
            anchor, anchors = "audio", np.arange(len(pool["audio"].names))
            if name == "train" and self.pairs is not None:
                order = np.argsort(keyed.uniform(np.arange(len(pool["image"].names)), self.seed, "pairs"))
                anchor, anchors = "image", np.resize(order, self.pairs)
            if name == "train":
                splits[name] = Pairs(name, pool, anchor, anchors, True, self.run_seed, self.signal)
            else:
                anchors = np.repeat(anchors, self.fixed_images)
                splits[name] = Pairs(name, pool, anchor, anchors, False, self.seed, self.signal)
        modalities = {
            "image": Modality("image", (1, *pools["train"]["image"].data.shape[1:])),
            "audio": Modality("spectrogram", (1, *self.signal.resolution)),
        }
        return DataSpec("classification", 10, len(splits["train"]), modalities, tuple("0123456789")), splits

    def pools(self) -> dict[str, dict[str, Pool]]:
        """Split -> modality -> what may be paired there."""
        root = self.folder
        ensure(root, self.download)
        images, test_images = read_images(root, "train"), read_images(root, "t10k")
        damaged: list[str] | None = [] if self.corrupt == "skip" else None
        sounds, speakers, numbers = read_recordings(root, round(self.seconds * RATE), damaged)
        if damaged:
            self.skipped["recordings"] = damaged
        test, train = numbers < 5, numbers >= 5
        if self.speaker is not None:
            if self.speaker not in speakers:
                raise UserError(
                    f"data.speaker={self.speaker} is unknown; choose from {', '.join(np.unique(speakers))}"
                )
            test, train = speakers == self.speaker, train & (speakers != self.speaker)
        rows = np.flatnonzero(train)
        kept, held = hold_out(sounds.targets[rows].tolist(), self.validation, self.seed)
        cut = len(images.names) * (11 if self.validation else 12) // 12
        pools = {
            "train": {"image": images[:cut], "audio": sounds[rows[kept]]},
            "val": {"image": images[cut:], "audio": sounds[rows[held]]},
            "test": {"image": test_images, "audio": sounds[test]},
        }
        if not self.validation:
            del pools["val"]
        for split, modality in product(pools, ("image", "audio")):
            least = self.fixed_images if modality == "image" and split != "train" else 1
            if (lacking := np.bincount(pools[split][modality].targets, minlength=10) < least).any():
                raise UserError(
                    f"the {split} split has fewer than {least} {modality} samples of digits "
                    f"{np.flatnonzero(lacking).tolist()}: {root} holds {len(images.names)} training and "
                    f"{len(test_images.names)} test images (complete: 60000 and 10000) and {len(sounds.names)} "
                    "recordings (3000); complete it, or change data.validation or data.fixed_images"
                )
        return pools
