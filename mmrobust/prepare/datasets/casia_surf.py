"""CASIA-SURF: the triplets that the lists name, checked one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmrobust.data.families.casia_surf_lists import CLASSES, MODALITIES, SOURCE, Triplets, read_triplets
from mmrobust.data.files import images
from mmrobust.errors import Problems
from mmrobust.prepare import facts
from mmrobust.prepare.facts import Fact
from mmrobust.prepare.items import absent, copied, copy
from mmrobust.prepare.plan import Download, Item, Plan, defaults, no_problems

TITLE = "CASIA-SURF"
MARKS = ("train_list.txt", "val_private_list.txt", "Training/*_part")
EXPECTED = f"Training, Val, Testing and the lists train_list.txt, val_private_list.txt, test_private_list.txt: {SOURCE}"
OPTIONS = ()
OFFICIAL = {"train": {"spoof": 20324, "live": 8942}, "val": {"spoof": 6614, "live": 2994}}
TEST = 57710


def plan(download: Download) -> Plan:
    found, problems = Plan(), Problems()
    lists = {split: download.find(name) for split, name in lists_of().items()}
    if lists["val"] is None and lists["train"] is not None:
        found.notes.append("no list of val: train with data.lists.val=null")
        del lists["val"]
    folders: dict[str, set[str]] = {}
    for split, path in lists.items():
        source = str(path or lists_of()[split])
        triplets = read_triplets(download.raw, source, folders, problems)
        for name, (paths, label) in triplets.items():
            found.items.append(item_of(name, paths, split, CLASSES[label], download.raw))
    no_problems(problems, f"raw={download.raw}")
    found.items.extend(copied(path, lists_of()[split]) for split, path in lists.items() if path)
    return found


def item_of(name: str, paths: Sequence[Path], split: str, label: str, raw: Path) -> Item:
    if lost := [str(path.relative_to(raw)) for path in paths if not path.is_file()]:
        return absent(name, f"no {' and no '.join(lost)} in {raw}")
    files = {str(path.relative_to(raw)): path for path in paths}
    return Item(name, paths, tuple(files), partial(make_triplet, files), split, label)


def make_triplet(files: Mapping[str, Path], root: Path) -> None:
    for path in files.values():
        images.read_image(path)
    copy(files, root)


def lists_of() -> dict[str, str]:
    """{split: name of its list}."""
    found: dict[str, str] = defaults("casia_surf")["lists"]
    return found


def known(root: Path, options: Mapping[str, Any]) -> list[Fact]:
    """What a prepared folder holds."""
    problems, folders = Problems(), dict[str, set[str]]()
    splits: dict[str, Triplets] = {
        split: read_triplets(root, name, folders, problems)
        for split, name in lists_of().items()
        if (root / name).is_file()
    }
    found = [facts.none("problems of the lists", problems)]
    for split, official in OFFICIAL.items():
        classes = Counter(CLASSES[label] for _, label in splits.get(split, {}).values())
        found.append(facts.counts(f"{split}: triplets in classes", official, classes))
    found.append(facts.count("test: triplets", TEST, len(splits.get("test", {}))))
    names = [{*triplets} for triplets in splits.values()]
    both = sorted({n for i, a in enumerate(names) for b in names[i + 1 :] for n in a & b})
    found.append(facts.none("triplets in two splits", both))
    every = [paths for triplets in splits.values() for paths, _ in triplets.values()]
    for i, part in enumerate(MODALITIES):
        paths = [triplet[i] for triplet in every]
        lost = [str(path.relative_to(root)) for path in paths if not path.is_file()]
        found.append(facts.none(f"triplets without {part}", lost))
        found += facts.pictures([path for path in paths if path.is_file()], part, "")
    return found
