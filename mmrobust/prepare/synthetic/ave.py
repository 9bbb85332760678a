"""A small AVE, made up, in the form of its zip file."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from mmrobust.data.families.ave_lists import LISTS
from mmrobust.prepare.synthetic.film import write_film

EVENTS = ("Race car, auto racing", "Frying (food)", "Bark")
SIZE = (72, 96)  # (height, width)


def make(root: Path, *, each: int = 3, seconds: float = 2) -> None:
    """`each` videos of three classes in val and test, twice as many in train, ids that begin with - and _."""
    header, rows = "Category&VideoID&Quality&StartTime&EndTime", dict[str, list[str]]()
    for split, count in (("train", 2 * each), ("val", each), ("test", each)):
        rows[split] = []
        for label, event in enumerate(EVENTS):
            for i in range(count):
                name = f"{'-_x'[label]}{split:_<6}{label}{i:03d}"
                write_film(root / f"AVE/{name}.mp4", label, seconds, SIZE)
                rows[split].append(f"{event}&{name}&good&0&{round(seconds)}")
        (root / LISTS[split]).write_text("\n".join([header, *rows[split]]) + "\n")
    (root / "Annotations.txt").write_text("\n".join([header, *chain(*rows.values())]) + "\n")
