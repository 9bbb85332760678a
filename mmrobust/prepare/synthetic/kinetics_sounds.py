"""A small Kinetics-Sounds, made up, as the clips of Kinetics-400 are distributed, in folders of classes."""

from __future__ import annotations

from pathlib import Path

from mmrobust.prepare.synthetic.film import write_film

ON_DISK = ("bowling", "playing drums", "tapping pen")
SIZE = (72, 96)  # (height, width)


def make(root: Path, *, each: int = 3, seconds: float = 3) -> None:
    """`each` videos of three classes in val, twice as many in train, and the field's two lists."""
    for split, half, count in (("train", "train", 2 * each), ("test", "val", each)):
        rows = []
        for label, name in enumerate(ON_DISK):
            for i in range(count):
                video = f"-{split:_<6}{label}{i:03d}"
                stem = f"{video}_{7 + i:06d}_{17 + i:06d}"
                write_film(root / f"{half}/{name}/{stem}.mp4", label, seconds, SIZE)
                rows.append(f"{stem if split == 'train' else f'{video}_{7 + i}'},10,{label}")
        (root / f"my_{split}.txt").write_text("\n".join(rows) + "\n")
