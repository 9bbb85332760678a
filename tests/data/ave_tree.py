"""A small AVE in the layout that the framework reads, made up: `make_ave(root)`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from tests.data.clip_tree import write_clip

EVENTS = ("Race car, auto racing", "Frying (food)", "Bark")


def make_ave(root: Path, *, each: int = 3, seconds: float = 1, size: tuple[int, int] = (24, 32)) -> None:
    """`each` clips of three classes in val and test, twice as many in train, ids that begin with - and _."""
    for split, count in (("train", 2 * each), ("val", each), ("test", each)):
        rows = ["Category&VideoID&Quality&StartTime&EndTime"]
        for label, event in enumerate(EVENTS):
            for i in range(count):
                video = f"{'-_x'[label]}{split:_<6}{label}{i:03d}"
                write_clip(root / f"Audio/{video}.wav", root / f"Image-01-FPS/{video}", label, seconds, size)
                rows.append(f"{event}&{video}&good&0&10")
        (root / f"{split}Set.txt").write_text("\n".join(rows) + "\n")


def write_sound(path: Path, seconds: float) -> None:
    """A ramp from 0 to 0.5: its value tells the time."""
    soundfile.write(path, np.linspace(0, 0.5, round(8000 * seconds)), 8000)
