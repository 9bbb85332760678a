"""The names of clips and classes in Kinetics-Sounds, and the lists of them that released codes come with. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmrobust.data.audit import Audit
from mmrobust.data.files.lists import read_list
from mmrobust.errors import Problems

if TYPE_CHECKING:
    from mmrobust.data.families.clips import Clip

LISTS = {"train": "my_train.txt", "test": "my_test.txt"}
SOURCE = "github.com/cvdfoundation/kinetics-dataset"


def listed(root: Path, halves: Mapping[str, Mapping[str, Clip]], audit: Audit) -> dict[str, dict[str, Clip]]:
    """What the two lists name, in either half on disk, {split: {name: clip}}. Adds to `audit`, also where labels do not
    agree with the class folders."""
    disk = {
        identity(clip.sound.stem): (name, clip) for half in halves.values() for name, clip in half.items()
    }
    rows = {split: read_labels(root / name, audit.problems) for split, name in LISTS.items()}
    found: dict[str, dict[str, Clip]] = {}
    folders: dict[int, set[str]] = {}
    for split, labels in rows.items():
        found[split] = dict(disk[key] for key in map(identity, labels) if key in disk)
        absent = [stem for stem in labels if identity(stem) not in disk]
        where = "no class folder of data.classes has enough frames or a sound of them"
        audit.damaged.add(f"{LISTS[split]}: {where}", absent, f"get them from {SOURCE}")
        for stem in labels.keys() - {*absent}:
            folders.setdefault(labels[stem], set()).add(category(disk[identity(stem)][1]))
    mixed = [f"label {x}: {' and '.join(sorted(n))}" for x, n in sorted(folders.items()) if len(n) > 1]
    audit.problems.add(
        "one label of the lists for clips in several class folders", mixed, "put them into one"
    )
    keys = {split: {identity(stem) for stem in labels} for split, labels in rows.items()}
    both = sorted(f"{video} at {start} s" for video, start in keys["train"] & keys["test"])
    audit.problems.add(f"in {LISTS['train']} and {LISTS['test']}", both, "take them out of one")
    return found


def category(clip: Clip) -> str:
    """The class folder of a clip."""
    return clip.sound.parent.name


def normalised(name: str) -> str:
    """As class folders are called."""
    return re.sub(r"\s+", "_", name.strip())


def identity(stem: str) -> tuple[str, int]:
    """YouTube id (11 characters, `_` and `-` among them) and start (s) of `<id>_<start>_<end>` or `<id>_<start>`; of
    another name, itself and -1."""
    match = re.fullmatch(r"(.{11})_(\d+)(?:_\d+)?", stem)
    return (match[1], int(match[2])) if match else (stem, -1)


def read_labels(path: Path, problems: Problems) -> dict[str, int]:
    """{stem: label} of rows `stem,seconds,label` (or `stem,label`). Adds to `problems`."""

    def parse(line: str) -> tuple[str, int]:
        stem, *_, label = (field.strip() for field in line.split(","))
        if not (stem and label.isdecimal()):
            raise ValueError
        return stem, int(label)

    lacking = "put it there, or go without lists: data.split=folders"
    return read_list(path, parse, problems, lacking=lacking, expected="`stem,seconds,label`")
