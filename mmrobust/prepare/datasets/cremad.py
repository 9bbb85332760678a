"""CREMA-D: videos to frames, the sounds as they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmrobust.data.families.cremad_lists import EMOTIONS, LISTS, SOURCE, read_labels
from mmrobust.data.files.audio import read_audio
from mmrobust.errors import Problems, UserError
from mmrobust.prepare import facts, video
from mmrobust.prepare.facts import Fact
from mmrobust.prepare.items import copied, copy
from mmrobust.prepare.plan import Download, Item, Plan, no_problems
from mmrobust.prepare.written import write_frames

TITLE = "CREMA-D"
MARKS = ("AudioWAV", "VideoFlash", "VideoMP4")
EXPECTED = f"the clone of {SOURCE} (with git-LFS) with AudioWAV and VideoFlash"
OPTIONS = ("fps",)
RATE = 16000  # Hz, of the dataset's sounds
STEM = rf"1\d{{3}}_[A-Z]{{3}}_({'|'.join(EMOTIONS)})_[A-Z]{{2}}"
OFFICIAL = {
    "train": {"NEU": 973, "HAP": 1148, "SAD": 1131, "FEA": 1138, "DIS": 1142, "ANG": 1166},
    "test": {"NEU": 114, "HAP": 123, "SAD": 140, "FEA": 133, "DIS": 129, "ANG": 105},
}


def plan(download: Download) -> Plan:
    video.installed()
    found, problems = Plan(), Problems()
    lists = {split: path for split in OFFICIAL if (path := download.find(f"{split}.csv"))}
    splits = {stem: split for split, path in lists.items() for stem in read_labels(path, problems)}
    no_problems(problems, f"raw={download.raw}")
    if len(lists) < len(OFFICIAL):
        found.notes.append(
            f"no train.csv and test.csv ({LISTS}); put them into {download.raw} or name their folder with lists=, or train "
            "with data.split=actor"
        )
    frames = f"Image-{download.options['fps']:02d}-FPS"
    videos = {path.stem: path for path in video.in_folders(download.raw, ("VideoFlash", "VideoMP4"))}
    wavs = {path.stem: path for path in sorted((download.raw / "AudioWAV").glob("[!.]*.wav"))}
    for stem in sorted({*videos, *wavs, *splits}):
        outputs = (f"AudioWAV/{stem}.wav", f"{frames}/{stem}")
        sources = [source[stem] for source in (wavs, videos) if stem in source]
        make = partial(make_clip, stem, wavs.get(stem), videos.get(stem), outputs, download.options["fps"])
        label = stem[9:12] if re.fullmatch(STEM, stem) else ""
        found.items.append(Item(stem, sources, outputs, make, splits.get(stem, ""), label))
    found.items.extend(copied(path, path.name) for path in lists.values())
    return found


def make_clip(
    stem: str, wav: Path | None, film: Path | None, outputs: tuple[str, str], fps: int, root: Path
) -> None:
    """The sound is that of AudioWAV, or, where there is none, of the video."""
    if not re.fullmatch(STEM, stem):
        raise UserError("not a name of CREMA-D's, like 1001_DFA_ANG_XX; take it out or rename it")
    if film is None:
        raise UserError("it has no video; get VideoFlash again")
    if wav is None:
        video.extract(film, outputs[1], outputs[0], fps, RATE, root)
        return
    read_audio(wav, RATE)
    decoded = video.decode(film, fps, RATE)
    copy({outputs[0]: wav}, root)
    write_frames(root / outputs[1], decoded.frames)


def known(root: Path, options: Mapping[str, Any]) -> list[Fact]:
    """What a prepared folder holds."""
    problems = Problems()
    lists = {s: read_labels(root / f"{s}.csv", problems) for s in OFFICIAL if (root / f"{s}.csv").is_file()}
    stems = {path.stem for path in (root / "AudioWAV").glob("[!.]*.wav")}
    listed = {stem for of_split in lists.values() for stem in of_split}
    every = sorted(stems | listed)
    actors = [{stem[:4] for stem in of_split} for of_split in lists.values()]
    found = [
        facts.none("problems of the lists", problems),
        facts.count("clips", sum(sum(x.values()) for x in OFFICIAL.values()), len(stems)),
        facts.count("actors", 91, len({stem[:4] for stem in stems})),
    ]
    for split, of_split in lists.items():
        classes = Counter(EMOTIONS[label] for label in of_split.values())
        found.append(facts.counts(f"{split}: clips in classes", OFFICIAL[split], classes))
    if len(lists) == len(OFFICIAL):
        both = sorted(set(lists["train"]) & set(lists["test"]))
        found.append(facts.none("clips in train and test", both))
        # The lists of the field are not speaker independent.
        found.append(facts.count("actors in train and test", 91, len(set.intersection(*actors))))
    frames = root / f"Image-{options['fps']:02d}-FPS"
    sounds = {stem: root / f"AudioWAV/{stem}.wav" for stem in every}
    return [*found, *facts.clips(sounds, {stem: frames / stem for stem in every}, str(RATE))]
