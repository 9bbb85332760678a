"""A small Kinetics-Sounds in the layout of the released codes, made up: `make_kinetics_sounds(root)`."""

from __future__ import annotations

from pathlib import Path

from tests.data.clip_tree import write_clip

ON_DISK = ("bowling", "playing_drums", "tapping_pen")  # sorted, unlike the list of classes


def make_kinetics_sounds(root: Path, *, each: int = 3, size: tuple[int, int] = (24, 32)) -> None:
    """`each` clips of three classes in test, twice as many in train, and the two lists."""
    for split, half, count in (("train", "train_img", 2 * each), ("test", "val_img", each)):
        rows = []
        for label, name in enumerate(ON_DISK):
            for i in range(count):
                video = f"-{split:_<6}{label}{i:03d}"
                stem = f"{video}_{7 + i:06d}_{17 + i:06d}"
                sound = root / f"audio/{split}/{name}/{stem}.wav"
                write_clip(sound, root / f"visual/{half}/Image-01-FPS/{name}/{stem}", label, 1, size)
                rows.append(f"{stem if split == 'train' else f'{video}_{7 + i}'},10,{label}")
        (root / f"my_{split}.txt").write_text("\n".join(rows) + "\n")
