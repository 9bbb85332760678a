"""CREMA-D: 7,442 spoken sentences of 91 actors, sound and face, six emotions (Cao et al., 2014)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust import keyed
from mmrobust.data.families.clips import PREPARE, Clip, ClipModule, frames_in, note_absent
from mmrobust.data.families.cremad_lists import EMOTIONS, LISTS, SOURCE, read_labels
from mmrobust.data.held_out import with_validation
from mmrobust.data.spec import DataSpec
from mmrobust.data.split import Split
from mmrobust.errors import UserError

log = logging.getLogger(__name__)


class CREMAD(ClipModule):
    """`audio`, a log spectrogram (1, 257, 188), and `visual`, frames of the face (3, T, 224, 224).

    Layout: `AudioWAV/<id>.wav`, `Image-01-FPS/<id>/*.jpg` and OGM-GE's lists `train.csv` and `test.csv` (rows
    `id,EMOTION`; 6698 and 744 clips), which nearly all papers use. All is indexed, and checked, in `load`.

    Args:
        split: `ogm`, the two lists, in which the same actors occur; or `actor`, speaker independent: 15 % of
            the actors in either list (of AudioWAV, if there are no lists) to validate, 15 % to test.
        validation: share of every emotion that `ogm` holds out of train; at 0 there is no split `val`.
    """

    def __init__(self, *, split: str, validation: float, **base: Any) -> None:
        super().__init__(**base)
        self.split, self.validation = split, validation

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        if self.split not in ("ogm", "actor"):
            raise UserError(f"data.split={self.split} is not a split of CREMA-D; use ogm or actor")
        root = Path(self.root)
        folder = root / self.frames_folder
        prepare = PREPARE.format("cremad", self.fps)
        expected = (
            f"where AudioWAV, {folder.name}, train.csv and test.csv lie. AudioWAV and the videos are in {SOURCE} (with "
            f"git-LFS), the lists in {LISTS}; the frames are made of the videos: {prepare}"
        )
        with self.open_root(expected, samples="clips") as audit:
            lists = [root / "train.csv", root / "test.csv"]
            if self.split == "actor" and not any(path.is_file() for path in lists):
                lists = [root / "AudioWAV"]
            labels = [read_labels(path, audit.problems) for path in lists]
            if len(labels) > 1:
                both = [stem for stem in labels[0] if stem in labels[1]]
                audit.problems.add("in train.csv and test.csv", both, "take them out of one")
            train, *tests = (
                {
                    stem: Clip(root / f"AudioWAV/{stem}.wav", frames_in(folder / stem), label)
                    for stem, label in x.items()
                }
                for x in labels
            )
            test = tests[0] if tests else {}
            note_absent(
                train | test,
                audit.damaged,
                sounds=f"<id>.wav in {root / 'AudioWAV'}",
                get_sounds=f"get them from {SOURCE}",
                frames=f"<id>/*.jpg in {folder}",
                get_frames=f"run {prepare}",
            )
        if self.split == "actor":
            parts = by_actor(train | test, self.seed)
        else:
            targets = list(labels[0].values())
            parts = with_validation(train, test, targets, self.validation, self.seed, "clips")
            before, after = ({stem[:4] for stem in clips} for clips in (train, test))
            told = "%d of %d actors occur in train and test; data.split=actor keeps them apart"
            log.info(told, len(before & after), len(before | after))
        return self.described(EMOTIONS, parts)


def by_actor(clips: Mapping[str, Clip], seed: int) -> dict[str, Mapping[str, Clip]]:
    """The splits of data.split=actor."""
    actors = np.array(sorted({stem[:4] for stem in clips}))
    if len(actors) < 3:
        raise UserError(f"data.split=actor needs 3 actors, found {len(actors)}; use data.split=ogm")
    order = actors[np.argsort(keyed.uniforms(len(actors), seed, "actors"))]
    count = max(1, round(0.15 * len(actors)))
    groups = {"train": order[2 * count :], "val": order[count : 2 * count], "test": order[:count]}
    return {n: {s: clip for s, clip in clips.items() if s[:4] in group} for n, group in groups.items()}
