"""SUN RGB-D: the images that are read, with a label in each sample's folder, as ESANet's code does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust.data.audit import Audit
from mmrobust.data.families.maps import VOID
from mmrobust.data.families.sunrgbd_toolbox import (
    CLASSES,
    SCENES,
    SOURCE,
    find_labels,
    label_array,
    label_of,
    only_file,
    read_splits,
    sample_name,
)
from mmrobust.data.files import images
from mmrobust.data.files.folders import PICTURES, find
from mmrobust.data.files.hdf5 import Tables
from mmrobust.data.files.lists import read_lines
from mmrobust.data.progress import told
from mmrobust.errors import Problems, UserError
from mmrobust.prepare import facts
from mmrobust.prepare.facts import Fact
from mmrobust.prepare.items import absent, copy, listed
from mmrobust.prepare.plan import Download, Item, Plan, no_problems
from mmrobust.prepare.written import write_array

TITLE = "SUN RGB-D"
MARKS = ("SUNRGBD", "SUNRGBDtoolbox")
EXPECTED = f"the folders SUNRGBD and SUNRGBDtoolbox: {SOURCE}"
OPTIONS = ()
PARTS = {"image": PICTURES, "depth": (".png",), "depth_bfx": (".png",)}
OFFICIAL = {  # samples by sensor
    "train": {"kv2": 1924, "xtion": 1701, "kv1": 1073, "realsense": 587},
    "test": {"kv2": 1860, "xtion": 1688, "kv1": 930, "realsense": 572},
}
OF_SCENES = {"train": 4845, "test": 4659}  # that show one of SCENES


def plan(download: Download) -> Plan:
    found, samples = Plan(), download.raw / "SUNRGBD"
    audit = Audit(f"raw={download.raw}", skip=False, samples="samples")
    places = (*download.near, download.raw.parent)
    near = [place / part for place in places for part in ("SUNRGBDtoolbox", ".")]
    where = f"it is in {SOURCE}; or name its folder with lists="
    allsplit = find("allsplit.mat", [place / "traintestSUNRGBD" for place in near], audit.problems, where)
    splits = read_splits(allsplit, audit.problems) if allsplit.is_file() else {}
    names = [name for of_split in splits.values() for name in of_split]
    rows, tables, files = find_labels(near, names, audit)
    no_problems(audit.problems, f"raw={download.raw}")
    folders: dict[str, set[str]] = {}
    for split, of_split in splits.items():
        lines = []
        for name in of_split:
            parts = {part: only_file(samples / name / part, ends, folders) for part, ends in PARTS.items()}
            lines.append(f"{name}/image/{parts['image'].name}")  # the official lists, whatever is absent
            if lacking := [part for part, path in parts.items() if not path.is_file()]:
                found.items.append(absent(name, f"no {' and '.join(lacking)} in {samples / name}"))
                continue
            here = {f"SUNRGBD/{name}/{part}/{path.name}": path for part, path in parts.items()}
            if (scene := samples / name / "scene.txt").is_file():
                here[f"SUNRGBD/{name}/scene.txt"] = scene
            label = f"SUNRGBD/{name}/label/label.npy"
            make = partial(make_sample, parts, here, tables, rows[name], label)
            sources = (*here.values(), *files)
            found.items.append(Item(name, sources, (*here, label), make, split, name.partition("/")[0]))
        found.items.append(listed(f"{split}_rgb.txt", lines, allsplit))
    return found


def make_sample(
    parts: Mapping[str, Path], here: Mapping[str, Path], tables: Tables, row: int, label: str, root: Path
) -> None:
    classes = label_of(tables, row)
    sizes = {part: images.read_map(path).shape for part, path in parts.items() if part != "image"}
    sizes |= {"image": images.read_image(parts["image"]).shape[:2], "label": classes.shape}
    if len(set(sizes.values())) > 1:
        told_sizes = ", ".join(f"{part} {h} × {w}" for part, (h, w) in sizes.items())
        raise UserError(f"its parts differ in size: {told_sizes}; get it again")
    copy(here, root)
    # On disk 0 is void, and the classes follow.
    write_array(root / label, np.where(classes == VOID, 0, classes + 1).astype(np.uint8))


def known(root: Path, options: Mapping[str, Any]) -> list[Fact]:
    """What a prepared folder holds; one in the official form is looked at as well."""
    problems = Problems()
    splits = names_of(root, problems)
    samples = root / "SUNRGBD" if (root / "SUNRGBD").is_dir() else root
    found = [facts.none("problems of the lists", problems)]
    for split, official in OFFICIAL.items():
        sensors = Counter(name.partition("/")[0] for name in splits.get(split, []))
        found.append(facts.counts(f"{split}: samples of sensors", official, sensors))
    for split, number in OF_SCENES.items():
        kinds = [scene_of(samples / name) for name in splits.get(split, [])]
        found.append(
            facts.count(f"{split}: samples of the 19 scenes", number, sum(k in SCENES for k in kinds))
        )
    both = sorted(set(splits.get("train", [])) & set(splits.get("test", [])))
    found.append(facts.none("samples in train and test", both))
    every = [name for of_split in splits.values() for name in of_split]
    folders: dict[str, set[str]] = {}
    for part, ends in PARTS.items():
        paths = [only_file(samples / name / part, ends, folders) for name in every]
        lacking = [name for name, path in zip(every, paths, strict=True) if not path.is_file()]
        found.append(facts.none(f"samples without {part}", lacking))
        kind = "" if part == "image" else "uint16"
        found += facts.pictures([path for path in paths if path.is_file()], part, "", kind)
    if any((samples / name / "label/label.npy").is_file() for name in every[:1]):
        bad = [name for name in told(every, "looked into labels") if not has_label(samples / name)]
        found.append(facts.none(f"samples without a label of 0 to {len(CLASSES)}", bad))
    return found


def names_of(root: Path, problems: Problems) -> dict[str, Sequence[str]]:
    """The samples of train and test, by lists or the toolbox."""
    lists = {split: root / f"{split}_rgb.txt" for split in OFFICIAL}
    if all(path.is_file() for path in lists.values()):
        return {s: [sample_name(x, 2) for x in read_lines(path) if x.strip()] for s, path in lists.items()}
    near = [root, root.parent, root.with_name(f"{root.name}_meta")]
    places = [place / part / "traintestSUNRGBD" for place in near for part in ("SUNRGBDtoolbox", ".")]
    path = find("allsplit.mat", places, problems, f"expected train_rgb.txt and test_rgb.txt, or {EXPECTED}")
    return {**read_splits(path, problems)} if path.is_file() else {}


def scene_of(folder: Path) -> str:
    try:
        return (folder / "scene.txt").read_text(errors="replace").strip()
    except OSError:
        return ""


def has_label(folder: Path) -> bool:
    try:
        label_array(folder / "label/label.npy")
    except UserError:
        return False
    return True
