"""AV-MNIST: a handwritten digit (MNIST) and the same digit spoken (Free Spoken Digit Dataset, FSDD).

Both halves are real; nature does not pair them, so a pair is drawn among the images and the recordings of
one digit and one split. Noise on pixels and waveforms keeps either half from sufficing alone.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from mmrobust import keyed
from mmrobust.data.base import DataModule
from mmrobust.data.families.digits import RATE, Pool, centred, ensure, read_images, read_recordings
from mmrobust.data.families.pairs import Pairs, Signal
from mmrobust.data.files import images
from mmrobust.data.files.audio import read_audio, wave_of
from mmrobust.data.held_out import hold_out
from mmrobust.data.reader import Reader, colours_of
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Split
from mmrobust.errors import UserError
from mmrobust.files import short_hash


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

    def reader(self, modality: str, spec: DataSpec) -> Reader:
        """A white digit on black, 28 × 28 or scaled to that, and a spoken one; without the noise that this dataset adds."""
        samples = round(self.seconds * RATE)
        if modality == "audio":
            return Reader(
                spec.modalities[modality],
                lambda path: centred(read_audio(path, RATE), samples),
                lambda raw: centred(wave_of(raw, RATE), samples),
                lambda wave: self.signal.spectrogram(self.signal.magnitude(wave)),
            )
        height, width = spec.modalities[modality].shape[1:]

        def finish(image: np.ndarray) -> Tensor:
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            return self.signal.pixels(images.scaled_to(grey, (height, width)))

        return Reader(spec.modalities[modality], images.read_image, colours_of, finish)

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
