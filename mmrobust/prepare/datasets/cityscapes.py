"""Cityscapes: labels of 19 classes and depth in metres beside the images, as ESANet's code does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust.data.families.cityscapes_files import (
    CLASSES,
    LARGEST_ID,
    OFFICIAL,
    PREPARED,
    SOURCE,
    official_depth,
    official_table,
)
from mmrobust.data.families.maps import depth_map, label_map
from mmrobust.data.files import images
from mmrobust.errors import UserError
from mmrobust.prepare import facts
from mmrobust.prepare.facts import Fact
from mmrobust.prepare.items import absent, copy
from mmrobust.prepare.plan import Download, Item, Plan
from mmrobust.prepare.written import write_array, write_map

TITLE = "Cityscapes"
MARKS = ("leftImg8bit", "gtFine")
EXPECTED = f"the folders leftImg8bit, gtFine, disparity and camera: {SOURCE}"
OPTIONS = ()
NUMBERS = {"train": (2975, 18), "test": (500, 3)}  # frames, cities
SIZE = "1024 × 2048"


def plan(download: Download) -> Plan:
    found, raw = Plan(), download.raw
    if lacking := [name for name in ("leftImg8bit", "gtFine", "disparity") if not (raw / name).is_dir()]:
        raise UserError(f"raw={raw} has no {' and no '.join(lacking)}; expected {EXPECTED}")
    cameras = (raw / "camera").is_dir()
    if not cameras:
        found.notes.append("no folder camera, so no depth in metres: train with data.depth=disparity")
    for split, half in OFFICIAL.items():
        for rgb in sorted((raw / "leftImg8bit" / half).glob("*/[!.]*_leftImg8bit.png")):
            city, name = rgb.parent.name, rgb.name.removesuffix("_leftImg8bit.png")
            label = raw / f"gtFine/{half}/{city}/{name}_gtFine_labelIds.png"
            disparity = raw / f"disparity/{half}/{city}/{name}_disparity.png"
            camera = raw / f"camera/{half}/{city}/{name}_camera.json"
            sources = (rgb, label, disparity, *((camera,) if cameras else ()))
            if lost := [str(path.relative_to(raw)) for path in sources if not path.is_file()]:
                found.items.append(absent(name, f"no {' and no '.join(lost)} in {raw}"))
                continue
            there = PREPARED[split]
            outputs = [
                f"{there}/rgb/{city}/{rgb.name}",
                f"{there}/labels_19/{city}/{label.name}",
                f"{there}/disparity_raw/{city}/{disparity.name}",
                *([f"{there}/depth_raw/{city}/{name}_depth.npy"] if cameras else []),
            ]
            make = partial(make_frame, rgb, label, disparity, outputs)
            found.items.append(Item(name, sources, outputs, make, split, city))
    if not found.items:
        raise UserError(f"raw={raw} has no leftImg8bit/train/<city>/*_leftImg8bit.png; expected {EXPECTED}")
    return found


def make_frame(rgb: Path, label: Path, disparity: Path, outputs: list[str], root: Path) -> None:
    classes = label_map(label, official_table())
    sizes = {images.read_image(rgb).shape[:2], classes.shape, depth_map(disparity).shape}
    if len(sizes) > 1:
        raise UserError(f"its parts differ in size (height, width): {sorted(sizes)}; get them again")
    copy({outputs[0]: rgb, outputs[2]: disparity}, root)
    write_map(root / outputs[1], classes + np.uint8(1))  # void, 255, becomes 0
    for output in outputs[3:]:
        depth = official_depth(disparity).astype(np.float16)
        write_array(root / output, depth)


def known(root: Path, options: Mapping[str, Any]) -> list[Fact]:
    """What a prepared folder holds; one in the official form is looked at as well."""
    prepared = (root / "train/rgb").is_dir()
    found, cities, every = list[Fact](), dict[str, set[str]](), list[tuple[Path, Path, Path]]()
    for split, (number, of_cities) in NUMBERS.items():
        half = (PREPARED if prepared else OFFICIAL)[split]
        base = root / half / "rgb" if prepared else root / "leftImg8bit" / half
        labels = root / half / "labels_19" if prepared else root / "gtFine" / half
        disparities = root / half / "disparity_raw" if prepared else root / "disparity" / half
        pictures = sorted(base.glob("*/[!.]*_leftImg8bit.*"))
        for rgb in pictures:
            city, name = rgb.parent.name, rgb.stem.removesuffix("_leftImg8bit")
            label = labels / city / f"{name}_gtFine_labelIds.png"
            every.append((rgb, label, disparities / city / f"{name}_disparity.png"))
        counter = Counter(path.parent.name for path in pictures)
        cities[split] = set(counter)
        found.append(facts.count(f"{split}: frames", number, len(pictures)))
        found.append(facts.count(f"{split}: cities", of_cities, len(counter)))
    found.append(facts.none("cities in train and test", sorted(cities["train"] & cities["test"])))
    for part, paths in zip(("rgb", "labels", "disparity"), zip(*every, strict=True), strict=False):
        there = [path for path in paths if path.is_file()]
        found.append(facts.none(f"frames without {part}", [p.name for p in paths if not p.is_file()]))
        found += facts.pictures(there, part, SIZE, "uint16" if part == "disparity" else "", amount=True)
        if part == "labels":
            found.append(facts.maps(there, part, len(CLASSES) if prepared else LARGEST_ID))
    return found
