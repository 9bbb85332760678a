"""AV-MNIST: MNIST's four files and the recordings of FSDD, checked and put where they belong."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmrobust.data.families.digits import IMAGES, LABELS, RATE, TARGETS, find, read_idx
from mmrobust.data.files.audio import read_audio
from mmrobust.errors import UserError
from mmrobust.prepare import facts
from mmrobust.prepare.facts import Fact
from mmrobust.prepare.items import copy
from mmrobust.prepare.plan import Download, Item, Plan

TITLE = "AV-MNIST"
MARKS = tuple(
    f"{place}{name}" for place in ("", "*/", "MNIST/raw/") for name in ("recordings", f"train-{IMAGES}*")
)
EXPECTED = (
    "MNIST (train-images-idx3-ubyte.gz and three more) and the folder recordings of "
    "github.com/Jakobovski/free-spoken-digit-dataset; download=true fetches what is not there"
)
OPTIONS = ()
MAGIC = {IMAGES: 2051, LABELS: 2049}
OFFICIAL = {  # images of every digit
    "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    "t10k": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
}
RECORDINGS = 300  # of every digit
CONTENTS = {  # sha256 of what is in the files, however they are compressed
    f"train-{IMAGES}": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    f"train-{LABELS}": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    f"t10k-{IMAGES}": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    f"t10k-{LABELS}": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}
# Of the names and contents of all recordings, sorted.
ALL_RECORDINGS = "45a9b976ba3397a2fd5c70a9f2e43c34f442a3a6be47392ecfc41174b678f37e"


def plan(download: Download) -> Plan:
    found, raw = Plan(), download.raw
    parts = {part: find(raw, part) for part in TARGETS}
    if lacking := [part for part, path in parts.items() if path is None]:
        raise UserError(f"raw={raw} lacks {', '.join(lacking)}; expected {EXPECTED}")
    for part, path in parts.items():
        if path is not None and part != "recordings":
            target = TARGETS[part] if path.suffix == ".gz" else TARGETS[part].removesuffix(".gz")
            found.items.append(Item(part, (path,), (target,), partial(make_part, part, path, target)))
    for path in sorted(parts["recordings"].glob("[!.]*.wav")) if parts["recordings"] else ():
        target = f"{TARGETS['recordings']}/{path.name}"
        digit, number = number_of(path) or ("", -1)
        split = "" if number < 0 else "test" if number < 5 else "train"
        found.items.append(
            Item(path.name, (path,), (target,), partial(make_recording, path, target), split, digit)
        )
    return found


def number_of(path: Path) -> tuple[str, int] | None:
    """Digit and number of a recording; none if it is called otherwise."""
    match = re.fullmatch(r"(\d)_[^_]+_(\d+)", path.stem)
    return (match[1], int(match[2])) if match else None


def make_part(part: str, path: Path, target: str, root: Path) -> None:
    read_idx(path, MAGIC[part.partition("-")[2]])
    copy({target: path}, root)


def make_recording(path: Path, target: str, root: Path) -> None:
    if number_of(path) is None:
        raise UserError(f"{path.name} is no name of FSDD's, like 7_jackson_32.wav; take it out or rename it")
    read_audio(path, RATE)
    copy({target: path}, root)


def fetch(raw: Path) -> None:
    """Download what `raw` lacks, with MNIST's checksums. Raises: UserError: it cannot be had."""
    from mmrobust.data.families.digits import ensure

    ensure(raw, download=True)


def known(root: Path, options: Mapping[str, Any]) -> list[Fact]:
    """What a prepared folder holds."""
    found = list[Fact]()
    for half, numbers in OFFICIAL.items():
        official = {str(digit): number for digit, number in enumerate(numbers)}
        for kind, magic in MAGIC.items():
            part, path = f"{half}-{kind}", find(root, f"{half}-{kind}")
            try:
                array = read_idx(path, magic) if path else None
            except UserError as error:
                found.append(facts.none(f"problems of {part}", [str(error)]))
                continue
            if array is None:
                found.append(facts.none("absent files", [part]))
                continue
            if kind == LABELS:
                digits = Counter(map(str, array.tolist()))
                found.append(facts.counts(f"{half}: images of digits", official, digits))
            else:
                found.append(
                    facts.alike(f"{half}: size of images", "28 × 28", ["{} × {}".format(*array.shape[1:])])
                )
            same = hashlib.sha256(array.tobytes()).hexdigest() == CONTENTS[part]
            found.append(
                facts.alike(f"{part}: contents", "MNIST's", ["MNIST's" if same else "others"], amount=True)
            )
    folder = find(root, "recordings")
    paths = sorted(folder.glob("[!.]*.wav")) if folder else []
    names = [number_of(path) for path in paths]
    digits = Counter(name[0] for name in names if name)
    found.append(facts.counts("recordings of digits", {str(d): RECORDINGS for d in range(10)}, digits))
    found.append(facts.none("recordings called otherwise", [p.name for p in paths if not number_of(p)]))
    found.append(facts.count("recordings for testing (0 to 4)", 300, sum(n[1] < 5 for n in names if n)))
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + path.read_bytes())
    same = digest.hexdigest() == ALL_RECORDINGS
    found.append(
        facts.alike("contents of recordings", "FSDD's", ["FSDD's" if same else "others"], amount=True)
    )
    return [*found, *facts.sounds(paths, str(RATE))]
