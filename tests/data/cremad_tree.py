"""A small CREMA-D in the official layout, made up: `make_cremad(root)`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import soundfile

EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")


def make_cremad(root: Path, *, actors: int = 4, sentences: int = 2, frames: int = 3) -> dict[str, list[str]]:
    """Write wavs (16 kHz, 1 s, of a pitch by emotion), frames (96 × 72, of a colour by emotion) and lists.

    Every actor speaks every sentence in every emotion; the last sentence makes up test.csv.

    Returns:
        The ids in train.csv and in test.csv.
    """
    lists: dict[str, list[str]] = {"train": [], "test": []}
    (root / "AudioWAV").mkdir(parents=True)
    time = np.arange(16000) / 16000
    for actor in range(1001, 1001 + actors):
        for sentence in SENTENCES[:sentences]:
            for label, emotion in enumerate(EMOTIONS):
                stem = f"{actor}_{sentence}_{emotion}_XX"
                lists["test" if sentence == SENTENCES[sentences - 1] else "train"].append(stem)
                wave = 0.5 * np.sin(2 * np.pi * (200 * (label + 1) + actor % 1000) * time)
                soundfile.write(root / "AudioWAV" / f"{stem}.wav", wave, 16000, subtype="PCM_16")
                folder = root / "Image-01-FPS" / stem
                folder.mkdir(parents=True)
                for frame in range(frames):
                    image = np.zeros((72, 96, 3), np.uint8)
                    image[:, :, label % 3] = np.linspace(40 * (label + 1), 0, 96)  # left is bright
                    image[frame::8] = 255
                    cv2.imwrite(str(folder / f"{30 * frame:05d}.jpg"), image)
    for name, stems in lists.items():
        (root / f"{name}.csv").write_text("".join(f"{stem},{stem[9:12]}\n" for stem in stems))
    return lists
