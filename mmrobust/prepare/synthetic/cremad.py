"""A small CREMA-D, made up, in the form of its repository."""

from __future__ import annotations

from pathlib import Path

import soundfile

from mmrobust.data.families.cremad_lists import EMOTIONS
from mmrobust.prepare.synthetic.film import tone, write_film

SENTENCES = ("IEO", "TIE", "IOM")
RATE = 16000
SIZE = (72, 96)  # (height, width)


def make(root: Path, *, actors: int = 4, suffix: str = ".flv", seconds: float = 2.2) -> None:
    """Wavs and videos of every actor with three sentences in every emotion; the last sentence makes up test.csv."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    stems = []
    for actor in range(1001, 1001 + actors):
        for sentence in SENTENCES:
            for label, emotion in enumerate(EMOTIONS):
                stem = f"{actor}_{sentence}_{emotion}_XX"
                stems.append(stem)
                lists["test" if sentence == SENTENCES[-1] else "train"].append(f"{stem},{emotion}\n")
                wav = root / f"AudioWAV/{stem}.wav"
                wav.parent.mkdir(parents=True, exist_ok=True)
                wave = tone(200 * (label + 1) + actor % 1000, seconds, RATE)
                soundfile.write(wav, wave, RATE, subtype="PCM_16")
                write_film(root / f"VideoFlash/{stem}{suffix}", label, seconds, SIZE)
    for name, rows in lists.items():
        (root / f"{name}.csv").write_text("".join(rows))
    rows = [f'{number},"{stem}"\n' for number, stem in enumerate(stems, start=1)]
    (root / "SentenceFilenames.csv").write_text('"Stimulus_Number","Filename"\n' + "".join(rows))
