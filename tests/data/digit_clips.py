"""Audio-visual digits in CREMA-D's layout: `make_digit_clips(root)`. A network must learn to tell them apart.

Digits 4 to 9 take the labels of the six emotions. Sounds and pictures are those of AV-MNIST where its files are at
hand, and generated ones elsewhere. Both are degraded, so that neither is read at a glance.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import soundfile

from mmrobust.data.families.digits import find, read_images
from tests.data.cremad_tree import EMOTIONS

RATE, SECONDS, SIDE = 8000, 1.5, 112
FIRST = 4  # the digit of the first label

Draw = Callable[
    [int, np.random.Generator], np.ndarray
]  # class, generator -> a sound (T,) or a picture (28, 28)


def make_digit_clips(root: Path, *, train: int = 300, test: int = 120, seed: int = 0) -> str:
    """Write `AudioWAV/`, `Image-01-FPS/`, `train.csv` and `test.csv` below root.

    Returns:
        `real` or `generated`: where sounds and pictures come from.
    """
    source = Path(os.environ.get("MMROBUST_DATA", "data")) / "avmnist"
    real = find(source, "recordings") is not None and find(source, "train-images-idx3-ubyte") is not None
    (root / "AudioWAV").mkdir(parents=True)
    for split, count in (("train", train), ("test", test)):
        sound, picture = _real(source, split) if real else (_tone, _glyph)
        generator, rows = np.random.default_rng([seed, split == "test"]), []
        for i in range(count):
            label = i % len(EMOTIONS)
            stem = f"{1000 + i % 91:04d}_{split[:2].upper()}{i:04d}_{EMOTIONS[label]}_XX"
            wave = _in_noise(sound(label, generator), generator)
            soundfile.write(root / "AudioWAV" / f"{stem}.wav", wave, RATE, subtype="PCM_16")
            folder = root / "Image-01-FPS" / stem
            folder.mkdir(parents=True)
            cv2.imwrite(str(folder / "00001.jpg"), _on_canvas(picture(label, generator), generator))
            rows.append(f"{stem},{EMOTIONS[label]}\n")
        (root / f"{split}.csv").write_text("".join(rows))
    return "real" if real else "generated"


def _real(source: Path, split: str) -> tuple[Draw, Draw]:
    """Recordings and pictures of a split; the splits share none."""
    recordings = find(source, "recordings")
    assert recordings is not None
    sounds = {
        label: [
            path
            for path in sorted(recordings.glob(f"{label + FIRST}_*.wav"))
            if (int(path.stem.split("_")[2]) < 8) == (split == "test")
        ]
        for label in range(len(EMOTIONS))
    }
    images = read_images(source, "train" if split == "train" else "t10k")

    def sound(label: int, generator: np.random.Generator) -> np.ndarray:
        return soundfile.read(sounds[label][generator.integers(len(sounds[label]))])[0]

    def picture(label: int, generator: np.random.Generator) -> np.ndarray:
        return images.data[generator.choice(np.flatnonzero(images.targets == label + FIRST))]

    return sound, picture


def _tone(label: int, generator: np.random.Generator) -> np.ndarray:
    """Half a second of a pitch and its overtones; the class is how the pitch moves."""
    time = np.linspace(0, 0.5, RATE // 2)
    start, end = ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 2))[label]
    pitch = generator.uniform(180, 260) * np.linspace(start, end, len(time))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return np.sum([np.sin(k * phase) / k for k in (1, 2, 3)], axis=0) * np.hanning(len(time))


def _glyph(label: int, generator: np.random.Generator) -> np.ndarray:
    """A drawn digit, turned a little."""
    image = np.zeros((28, 28), np.uint8)
    font = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX)[generator.integers(2)]
    cv2.putText(image, str(label + FIRST), (5, 24), font, 0.9, 255, int(generator.integers(1, 4)))
    turn = cv2.getRotationMatrix2D((14, 14), generator.uniform(-15, 15), generator.uniform(0.9, 1.1))
    return cv2.warpAffine(image, turn, (28, 28))


def _in_noise(sound: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The sound somewhere in 1.5 s of noise, 20 dB below it."""
    samples = round(RATE * SECONDS)
    sound = sound[: samples - 1000] / (np.sqrt((sound**2).mean()) + 1e-8)
    wave = 0.1 * generator.standard_normal(samples)
    start = generator.integers(samples - len(sound))
    wave[start : start + len(sound)] += sound
    return 0.5 * wave / np.abs(wave).max()


def _on_canvas(digit: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The digit in some colour, size and place on grey noise, (112, 112, 3) uint8."""
    side = int(generator.integers(60, 100))
    mask = cv2.resize(digit, (side, side)).astype(np.float32)[..., None] / 255
    canvas = generator.normal(0.5, 0.25, (SIDE, SIDE, 3)).clip(0, 1)
    y, x = generator.integers(0, SIDE - side, 2)
    place = canvas[y : y + side, x : x + side]
    canvas[y : y + side, x : x + side] = place * (1 - mask) + mask * generator.uniform(0.6, 1, 3)
    return (canvas * 255).astype(np.uint8)
