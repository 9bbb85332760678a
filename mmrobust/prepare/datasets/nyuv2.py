"""NYU Depth v2: the .mat to an image for every part of every frame, as ESANet's code does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust.data.families.nyuv2_mat import MAT, SOURCE, check_axes, depth_of, mapping_of, read_splits
from mmrobust.data.files.folders import picture
from mmrobust.data.files.hdf5 import Tables
from mmrobust.data.files.lists import read_lines
from mmrobust.errors import Problems, UserError
from mmrobust.prepare import facts
from mmrobust.prepare.facts import Fact
from mmrobust.prepare.items import listed
from mmrobust.prepare.plan import Download, Item, Plan, no_problems
from mmrobust.prepare.written import write_map, write_rgb

TITLE = "NYU Depth v2"
MARKS = (MAT,)
EXPECTED = f"{MAT}, splits.mat and classMapping40.mat: {SOURCE}, its toolbox, or github.com/ankurhanda/nyuv2-meta-data"
OPTIONS = ()
PARTS = ("rgb", "depth", "depth_raw", "labels_894", "labels_40", "labels_13")
LARGEST = {"labels_40": 40, "labels_13": 13}
OFFICIAL = {"train": 795, "test": 654}


def plan(download: Download) -> Plan:
    problems, found = Problems(), Plan()
    mat = download.raw / MAT
    near = ", ".join(map(str, download.near))
    files = {name: download.find(name) for name in ("splits.mat", "classMapping40.mat")}
    absent = [name for name, path in files.items() if path is None]
    problems.add(f"not in {near}", absent, f"get them, or name their folder with lists=. Expected {EXPECTED}")
    no_problems(problems, f"raw={download.raw}")
    splits, mapping = (path for path in files.values() if path)
    tables = Tables(mat)
    count = check_axes(tables, ["images", "depths", "rawDepths", "labels"], problems)
    rows = read_splits(splits, count, problems)
    no_problems(problems, f"raw={download.raw}")
    # On disk 0 is void, and the classes follow; in the tables void is the last of 256 numbers.
    stored = {f"labels_{n}": mapping_of(mapping, n) + np.uint8(1) for n in (40, 13)}
    for split, of_split in rows.items():
        for row in sorted(of_split):
            name = f"{row + 1:04d}"
            outputs = [f"{split}/{part}/{name}.png" for part in PARTS]
            make = partial(make_frame, tables, stored, row, outputs)
            found.items.append(Item(name, (mat, splits, mapping), outputs, make, split))
        names = [f"{row + 1:04d}" for row in sorted(of_split)]
        found.items.append(listed(f"{split}.txt", names, splits))
    return found


def make_frame(
    tables: Tables, stored: Mapping[str, np.ndarray], row: int, outputs: Sequence[str], root: Path
) -> None:
    rgb, *others = (root / output for output in outputs)
    labels = tables.row("labels", row)
    if labels.max(initial=0) >= len(stored["labels_40"]):
        raise UserError(
            f"labels[{row}] of {tables.path} go up to {labels.max()}, not 894; get the file again"
        )
    depths = [depth_of(tables, name, row) for name in ("depths", "rawDepths")]
    maps = [np.clip(depth, 0, 65535).astype(np.uint16) for depth in depths]
    maps += [labels.astype(np.uint16), *(table[labels] for table in stored.values())]
    write_rgb(rgb, tables.row("images", row))
    for path, numbers in zip(others, maps, strict=True):
        write_map(path, numbers)


def known(root: Path, options: Mapping[str, Any]) -> list[Fact]:
    """What a prepared folder holds."""
    lists = {split: root / f"{split}.txt" for split in OFFICIAL}
    names = {
        split: [line.strip().removesuffix(".png") for line in read_lines(path) if line.strip()]
        for split, path in lists.items()
        if path.is_file()
    }
    found = [facts.count(f"{s}: frames", n, len(names.get(s, []))) for s, n in OFFICIAL.items()]
    both = sorted(set(names.get("train", [])) & set(names.get("test", [])))
    found.append(facts.none("frames in train and test", both))
    folders: dict[str, set[str]] = {}
    for part in PARTS:
        paths = [
            picture(root / split / part / f"{name}.png", folders)
            for split, of_split in names.items()
            for name in of_split
        ]
        there = [path for path in paths if path.name in folders.get(str(path.parent), ())]
        if not there and part not in ("rgb", "depth", "labels_40"):
            found.append(facts.told_only(part, "none"))
            continue
        found.append(
            facts.none(f"frames without {part}", sorted({p.stem for p in paths} - {p.stem for p in there}))
        )
        kind = "uint16" if part in ("depth", "depth_raw", "labels_894") else ""
        found += facts.pictures(there, part, "480 × 640", kind, amount=True)
        if part in LARGEST:
            found.append(facts.maps(there, part, LARGEST[part]))
    return found
