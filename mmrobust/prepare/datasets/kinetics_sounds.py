"""Kinetics-Sounds: the videos of its classes, out of Kinetics-400, to sounds and frames."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmrobust.data.families.kinetics_lists import LISTS, SOURCE, identity, normalised, read_labels
from mmrobust.errors import Problems, UserError
from mmrobust.prepare import facts, video
from mmrobust.prepare.facts import Fact
from mmrobust.prepare.items import copied
from mmrobust.prepare.plan import Download, Item, Plan, defaults, has

TITLE = "Kinetics-Sounds"
MARKS = tuple(f"{half}/{below}*.mp4" for half in ("train", "val", "test") for below in ("", "*/"))
EXPECTED = (
    "the folders train and val, or test, with <class>/<stem>.mp4, or with <stem>.mp4 and beside them train.csv, val.csv "
    f"or test.csv (label, youtube_id, time_start, ...): {SOURCE}"
)
OPTIONS = ("fps", "sample_rate")
FOLDERS = {"train": ("train_img", "train"), "test": ("val_img", "test")}  # of visual, of audio
# Of the field's lists, rows of each label.
OFFICIAL = {
    "train": (
        268, 690, 607, 512, 497, 445, 635, 478, 457, 605, 563, 486, 604, 592, 366, 339, 333, 489, 653, 538, 654, 386, 281,
        493, 395, 672, 197, 523, 433, 354, 254,
    ),
    "test": (
        81, 92, 87, 87, 87, 68, 90, 90, 86, 79, 91, 88, 73, 85, 86, 91, 82, 84, 90, 90, 83, 91, 80, 92, 79, 66, 85, 84, 91,
        76, 63,
    ),
}  # fmt: skip
RATE = "16000"  # Hz, of the released codes


def plan(download: Download) -> Plan:
    video.installed()
    found = Plan()
    classes = {normalised(name) for name in defaults("kinetics_sounds")["classes"]}
    halves = {"train": "train", "test": "test" if has(download.raw, "test/*") else "val"}
    if halves["test"] == "test" and has(download.raw, "val/*"):
        found.notes.append("the clips of test become test; those of val are left out")
    fps, rate = download.options["fps"], download.options["sample_rate"]
    others: Counter[str] = Counter()
    for split, half in halves.items():
        visual, audio = FOLDERS[split]
        for path, label in labelled(download, half).items():
            if label not in classes:
                others[label or "clips without a class"] += 1
                continue
            frames = f"visual/{visual}/Image-{fps:02d}-FPS/{label}/{path.stem}"
            sound = f"audio/{audio}/{label}/{path.stem}.wav"
            make = partial(video.extract, path, frames, sound, fps, rate)
            found.items.append(
                Item(f"{split}/{label}/{path.stem}", (path,), (sound, frames), make, split, label)
            )
    if not found.items:
        raise UserError(
            f"raw={download.raw} has no clip of a class of data=kinetics_sounds, but {sum(others.values())} others "
            f"({', '.join(list(others)[:3])}); expected {EXPECTED}"
        )
    if others:
        found.notes.append(f"{sum(others.values())} clips of {len(others)} other classes are left out")
    lists = [download.find(name) for name in LISTS.values()]
    found.items.extend(copied(there, there.name) for there in lists if there)
    return found


def labelled(download: Download, half: str) -> dict[Path, str]:
    """The videos of a half with the names of their classes; one whose class nobody says has none."""
    folder = download.raw / half
    found = {
        path: normalised(path.parent.name)
        for path in sorted(folder.glob("[!.]*/[!.]*"))
        if path.suffix.lower() in video.SUFFIXES
    }
    if flat := video.in_folders(download.raw, (half,)):
        classes: dict[tuple[str, int], str] = {}
        for name in (f"{half}.csv", f"annotations/{half}.csv", f"annotations/{half}_annotations.csv"):
            if there := download.find(name):
                with there.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                    for row in csv.DictReader(file):
                        if (start := row.get("time_start") or "").isdecimal():
                            classes[row.get("youtube_id") or "", int(start)] = normalised(
                                row.get("label") or ""
                            )
        found |= {path: classes.get(identity(path.stem), "") for path in flat}
    return found


def known(root: Path, options: Mapping[str, Any]) -> list[Fact]:
    """What a prepared folder holds."""
    problems = Problems()
    found, ids = list[Fact](), dict[str, set[str]]()
    sounds, frames = dict[str, Path](), dict[str, Path]()
    for split, (visual, audio) in FOLDERS.items():
        in_audio, in_visual = root / "audio" / audio, root / f"visual/{visual}/Image-{options['fps']:02d}-FPS"
        names = {str(p.relative_to(in_audio).with_suffix("")) for p in in_audio.glob("[!.]*/[!.]*.wav")}
        names |= {str(p.relative_to(in_visual)) for p in in_visual.glob("[!.]*/[!.]*") if p.is_dir()}
        sounds |= {f"{split}/{name}": in_audio / f"{name}.wav" for name in sorted(names)}
        frames |= {f"{split}/{name}": in_visual / name for name in sorted(names)}
        ids[split] = {identity(name.rpartition("/")[2])[0] for name in names}
        found.append(facts.count(f"{split}: clips", sum(OFFICIAL[split]), len(names)))
        # Classes of the lists go by numbers; 31 to 34 of them are in use.
        found.append(facts.count(f"{split}: classes", 31, len({name.rpartition("/")[0] for name in names})))
        if (path := root / LISTS[split]).is_file():
            rows = Counter(str(label) for label in read_labels(path, problems).values())
            official = {str(label): number for label, number in enumerate(OFFICIAL[split])}
            found.append(facts.counts(f"{path.name}: rows in labels", official, rows))
    found.append(facts.none("problems of the lists", problems))
    found.append(facts.none("YouTube ids in train and test", sorted(ids["train"] & ids["test"])))
    return [*found, *facts.clips(sounds, frames, RATE)]
