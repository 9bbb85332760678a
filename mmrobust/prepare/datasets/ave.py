"""AVE: videos to sounds and frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmrobust.data.families.ave_lists import CLASSES, LISTS, SOURCE, Row, read_splits
from mmrobust.errors import Problems, UserError
from mmrobust.prepare import facts, video
from mmrobust.prepare.facts import Fact
from mmrobust.prepare.items import absent, copied
from mmrobust.prepare.plan import Download, Item, Plan, no_problems

TITLE = "AVE"
MARKS = ("AVE", *LISTS.values())
EXPECTED = f"the folder AVE_Dataset with AVE/*.mp4 and {', '.join(LISTS.values())}: {SOURCE}"
OPTIONS = ("fps", "sample_rate")
OF_LISTS = (*LISTS.values(), "Annotations.txt", *(f"{split}_order.h5" for split in LISTS))
# Clips of each class, in the order of CLASSES.
OFFICIAL = {
    "train": (
        152, 142, 137, 148, 152, 141, 144, 151, 138, 131, 146, 112, 82, 81, 150, 142, 128, 147, 80, 67, 57, 128, 48, 52,
        144, 89, 124, 126,
    ),
    "val": (
        18, 17, 17, 18, 18, 17, 17, 18, 17, 16, 18, 13, 10, 9, 18, 17, 16, 18, 10, 8, 6, 16, 6, 6, 18, 10, 15, 15,
    ),
    "test": (
        18, 17, 17, 18, 18, 17, 17, 18, 17, 16, 18, 13, 10, 9, 18, 17, 16, 18, 10, 8, 6, 16, 6, 6, 18, 10, 15, 15,
    ),
}  # fmt: skip


def plan(download: Download) -> Plan:
    video.installed()
    found, problems = Plan(), Problems()
    home = next((f for f in download.near if any((f / name).is_file() for name in OF_LISTS)), download.raw)
    splits = read_splits(home, problems)
    no_problems(problems, f"raw={download.raw}")
    videos = {path.stem: path for path in video.in_folders(download.raw, ("AVE",))}
    rows: dict[str, tuple[str, Row]] = {}  # a video with two classes is made once
    for split, of_split in splits.items():
        for row in of_split:
            rows.setdefault(row.video, (split, row))
    fps, rate = download.options["fps"], download.options["sample_rate"]
    for name, (split, row) in rows.items():
        if name not in videos:
            found.items.append(absent(name, f"no {download.raw / 'AVE' / name}.mp4, though a list names it"))
            continue
        outputs = (f"Audio/{name}.wav", f"Image-{fps:02d}-FPS/{name}")
        make = partial(video.extract, videos[name], outputs[1], outputs[0], fps, rate)
        found.items.append(Item(name, (videos[name],), outputs, make, split, CLASSES[row.target]))
    if unlisted := len(videos.keys() - rows.keys()):
        found.notes.append(f"{unlisted} videos that no list names are left out")
    found.items.extend(copied(home / name, name) for name in OF_LISTS if (home / name).is_file())
    return found


def known(root: Path, options: Mapping[str, Any]) -> list[Fact]:
    """What a prepared folder holds."""
    problems = Problems()
    try:
        splits = read_splits(root, problems)
    except UserError as error:
        problems.append(str(error))
        splits = {}
    found = [facts.none("problems of the lists", problems)]
    for split, numbers in OFFICIAL.items():
        classes = Counter(CLASSES[row.target] for row in splits.get(split, []))
        found.append(
            facts.counts(f"{split}: rows in classes", dict(zip(CLASSES, numbers, strict=True)), classes)
        )
    ids = {split: {row.video for row in rows} for split, rows in splits.items()}
    every = sorted(set().union(*ids.values()))
    train, val, test = (ids.get(split, set()) for split in OFFICIAL)
    found.append(facts.count("videos", 4097, len(every)))
    # Each of them has another class there; data.drop_overlap=true leaves them out of train.
    found.append(facts.count("videos in train and test", 8, len(train & test)))
    found.append(facts.count("videos in train and val or test", 18, len(train & (val | test))))
    frames = root / f"Image-{options['fps']:02d}-FPS"
    sounds = {name: root / f"Audio/{name}.wav" for name in every}
    return [*found, *facts.clips(sounds, {name: frames / name for name in every}, "")]
