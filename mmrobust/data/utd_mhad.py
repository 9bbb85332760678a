"""UTD-MHAD: 27 actions of 8 subjects before a Kinect, with an inertial sensor on wrist or thigh (Chen et al., 2015)."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmrobust.data.base import DataModule
from mmrobust.data.families.actions import MODALITIES, Actions, Signal, Take, inertial_statistics
from mmrobust.data.held_out import share_problem, with_validation
from mmrobust.data.spec import DataSpec
from mmrobust.data.split import Split
from mmrobust.errors import Problems
from mmrobust.files import expanded

# fmt: off
CLASSES = (
    "swipe_left", "swipe_right", "wave", "clap", "throw", "arm_cross", "basketball_shoot", "draw_x",
    "draw_circle_clockwise", "draw_circle_counter_clockwise", "draw_triangle", "bowling", "boxing",
    "baseball_swing", "tennis_swing", "arm_curl", "tennis_serve", "push", "knock", "catch",
    "pickup_and_throw", "jog", "walk", "sit_to_stand", "stand_to_sit", "lunge", "squat",
)
# fmt: on
SOURCE = "personal.utdallas.edu/~kehtar/UTD-MHAD.html"

log = logging.getLogger(__name__)


class UTDMHAD(DataModule):
    """`depth`, a video (1, T, H, W), `skeleton` (60, T') and `inertial` (6, T''), the last two sequences.

    Layout: `Depth`, `Skeleton` and `Inertial` below `root` with files like `a1_s1_t1_depth.mat` (action 1 to 27,
    subject, trial). The subjects on disk are those that count, eight in the whole dataset of 861 recordings; the
    usual protocol trains on odd ones (431) and tests on even ones. The keys are explained in
    conf/data/utd_mhad.yaml.
    """

    def __init__(
        self,
        *,
        train_subjects: Sequence[int] | None,
        test_subjects: Sequence[int] | None,
        validation: float,
        incomplete: str,
        frames: int,
        image_size: int,
        skeleton_steps: int,
        inertial_steps: int,
        jitter: float,
        motion: bool,
        cache: str | None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.subjects = {"train": train_subjects, "test": test_subjects}
        self.validation, self.incomplete = validation, incomplete
        folder = expanded(cache) / "utd_mhad" if cache else None
        self.signal = Signal(frames, image_size, skeleton_steps, inertial_steps, jitter, motion, folder)

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        root = Path(self.root)
        with self.open_root(f"where Depth, Skeleton and Inertial lie: {SOURCE}") as audit:
            problems = audit.problems
            problems.extend(self.wrong_keys())
            takes = find_takes(root, problems)
            for m in MODALITIES if self.incomplete == "error" else ():
                lacking = [name for name, take in takes.items() if m not in take.files]
                remedy = f"get them from {SOURCE}, or keep these samples without it: data.incomplete=allow"
                problems.add(f"no {m} file in {root / m.title()}", lacking, remedy)
            found = {take.subject for take in takes.values()}
            chosen = self.chosen_subjects(found, problems) if takes else {}
        train, test = (
            {name: take for name, take in takes.items() if take.subject in chosen[split]}
            for split in ("train", "test")
        )
        targets = [take.action for take in train.values()]
        parts = with_validation(train, test, targets, self.validation, self.seed, "recordings")
        actions = {split: Actions(takes, self.signal, None) for split, takes in parts.items()}
        actions["train"].run_seed = self.run_seed
        mean, std = inertial_statistics(actions["train"], skip=self.corrupt == "skip")
        for split, data in actions.items():
            data.mean, data.std = mean, std
            subjects = sorted({take.subject for take in data.takes})
            log.info("%s: %d recordings of subjects %s", split, len(data), subjects)
        spec = DataSpec("classification", len(CLASSES), len(parts["train"]), self.signal.modalities, CLASSES)
        return spec, dict(actions)

    def wrong_keys(self) -> list[str]:
        """What is wrong with the keys, whatever lies on disk."""
        s = self.signal
        least = {"frames": 1, "image_size": 8, "skeleton_steps": 2, "inertial_steps": 2}
        values = {"frames": s.frames, "image_size": s.size, "skeleton_steps": s.skeleton_steps}
        values["inertial_steps"] = s.inertial_steps
        problems = [
            f"data.{key}={value} is below {least[key]}" for key, value in values.items() if value < least[key]
        ]
        if problem := share_problem("data.validation", self.validation):
            problems.append(problem)
        if not 0 <= s.jitter < 0.5:
            problems.append(f"data.jitter={s.jitter} is no share of at least 0 and below 0.5")
        if self.incomplete not in ("error", "allow"):
            problems.append(f"data.incomplete={self.incomplete} is not known; choose error or allow")
        return problems

    def chosen_subjects(self, found: set[int], problems: Problems) -> dict[str, list[int]]:
        """The subjects of each split; adds to `problems`."""
        chosen = {}
        for split, odd in (("train", 1), ("test", 0)):
            given = self.subjects[split]
            chosen[split] = sorted(s for s in found if s % 2 == odd) if given is None else list(given)
            absent = [str(s) for s in chosen[split] if s not in found]
            problems.add(f"data.{split}_subjects: not on disk", absent, f"choose from {sorted(found)}")
            if not chosen[split]:
                problems.append(
                    f"no subject to {split} on: found {sorted(found)}; name some with data.{split}_subjects=[...]"
                )
        if both := sorted(set(chosen["train"]) & set(chosen["test"])):
            problems.append(
                f"subjects {both} are in train and test; set data.train_subjects or data.test_subjects"
            )
        return chosen


def find_takes(root: Path, problems: Problems) -> dict[str, Take]:
    """All recordings by name, in order of action, subject and trial; adds to `problems`."""
    files: dict[tuple[int, int, int], dict[str, Path]] = {}
    strange: list[str] = []
    for m in MODALITIES:
        for path in sorted((root / m.title()).glob("[!.]*.mat")):
            match = re.fullmatch(rf"a([1-9]\d*)_s([1-9]\d*)_t([1-9]\d*)_{m}", path.stem)
            if match and int(match[1]) <= len(CLASSES):
                action, subject, trial = map(int, match.groups())
                files.setdefault((action, subject, trial), {})[m] = path
            else:
                strange.append(f"{m.title()}/{path.name}")
    expected = f"aA_sS_tT_<modality>.mat with action A from 1 to {len(CLASSES)}"
    problems.add(f"files not called {expected}", strange, "rename them, or take them away")
    if not files and not strange:
        problems.append(
            f"no files called {expected} in {', '.join(str(root / m.title()) for m in MODALITIES)}: {SOURCE}"
        )
    return {f"a{a}_s{s}_t{t}": Take(a, s, files[a, s, t]) for a, s, t in sorted(files)}
