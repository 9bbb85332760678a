"""What RGB-D datasets share: two tasks, splits, class weights, and what is done about files that are absent."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmrobust.data.audit import Audit
from mmrobust.data.base import DataModule
from mmrobust.data.families import frame_augmentation
from mmrobust.data.families.frames import Frame, Frames, Source, Statistics
from mmrobust.data.families.maps import VOID, depth_map, median_frequency
from mmrobust.data.files import images
from mmrobust.data.files.folders import exists
from mmrobust.data.files.kept import cached, home
from mmrobust.data.held_out import share_problem, with_validation
from mmrobust.data.reader import Reader, colours_of, depth_of
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.data.split import Split
from mmrobust.errors import Problems, UserError, summarised
from mmrobust.files import short_hash

log = logging.getLogger(__name__)
Parts = dict[str, dict[str, Frame]]  # {split: {id: frame}}


@dataclass(frozen=True)
class Contents:
    """What a dataset found on disk: {split: {id: frame}} for train and test, and how to read it."""

    form: str
    frames: Parts
    source: Source
    classes: tuple[str, ...]


class RGBD(DataModule, ABC):
    """Base of RGB-D datasets: `rgb`, an image (3, H, W), and `depth` (1, H, W), for two tasks.

    In segmentation the target is (H, W), in training of the inputs' size, in validation and testing of its own; void is
    255. In scene classification it is a class. Training frames are augmented as `augmentation.segmentation` and
    `augmentation.scene` say, others resized to the inputs' size.

    Args:
        task: `segmentation` or, where there are classes of scenes, `scene`.
        image_size: [height, width] of the inputs.
        scale: in segmentation, the least and the largest factor by which training frames are enlarged, once they are
            brought to `image_size`; in the `published` size they are not.
        rescale_depth: divide depth by that factor; the published recipes do not.
        incomplete: a sample without rgb or depth on disk is an `error`, or `allow`ed and lacks that modality.
        validation: share of train (of every class of scenes) held out to validate; at 0 there is no split `val`.
        class_weights: `median_frequency`, median(f) / f_c, where f_c are the pixels of class c in train over all pixels
            of the images in which it occurs (1 for classes that never do); or `none`.
    """

    choices: ClassVar[Mapping[str, tuple[str | int, ...]]]  # of keys that have few values
    published: ClassVar[tuple[int, int]]  # (height, width) for which papers took frames as they lie on disk
    statistics: ClassVar[Mapping[str, Statistics]]  # of every kind of depth, of which `depth` says one
    depth: str
    layout: ClassVar[str]  # what lies at `root`, and where it comes from

    def __init__(
        self,
        *,
        task: str,
        image_size: Sequence[int],
        scale: Sequence[float],
        rescale_depth: bool,
        incomplete: str,
        validation: float,
        class_weights: str,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.task, self.size, self.scale, self.rescale_depth = (
            task,
            tuple(image_size),
            tuple(scale),
            rescale_depth,
        )
        self.incomplete, self.validation, self.class_weights = incomplete, validation, class_weights

    @abstractmethod
    def index(self, root: Path, audit: Audit) -> Contents:
        """What lies on disk. Adds to `audit`, and need return nothing of use then."""

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        self._check_keys()
        with self.open_root(f"where there is {self.layout}") as audit:
            contents = self.index(Path(self.root), audit)
            audit.check()
            log.info("form on disk, in %s: %s", self.root, contents.form)
            found = self._complete(contents.frames, audit.damaged)
        train = found["train"]
        scenes_of_train = [frame.scene for frame in train.values()]
        self.source = contents.source
        self.frames = with_validation(
            train, found["test"], scenes_of_train, self.validation, self.seed, "frames"
        )
        for name, part in self.frames.items():
            log.info("%s: %d frames", name, len(part))
            if not part:
                raise UserError(
                    f"split {name!r} of data.root={self.root} has no frames; expected {self.layout}"
                )
        scenes, (height, width), (low, high) = self.task == "scene", self.size, self.scale
        augmented = (
            frame_augmentation.scene((height, width))
            if scenes
            else frame_augmentation.segmentation(
                (height, width),
                (low, high),
                fitted=(height, width) != self.published,
                rescale_depth=self.rescale_depth,
            )
        )
        shared = contents.source, self.statistics[self.depth], (height, width), scenes, augmented
        splits: dict[str, Split] = {
            name: Frames(part, *shared, self.run_seed if name == "train" else None)
            for name, part in self.frames.items()
        }
        modalities = {
            "rgb": Modality("image", (3, height, width)),
            "depth": Modality("depth", (1, height, width)),
        }
        classes, count = contents.classes, len(splits["train"])
        if scenes:
            return DataSpec("classification", len(classes), count, modalities, classes), splits
        return DataSpec("segmentation", len(classes), count, modalities, classes, VOID), splits

    def depth_file(self, path: Path) -> np.ndarray:
        """A single file of depth in the dataset's unit, (H, W) float32; raises as `Source.depth`."""
        return depth_map(path)

    def reader(self, modality: str, spec: DataSpec) -> Reader:
        """A colour image; depth in the dataset's unit, as its prepared form has it."""
        _, height, width = spec.modalities[modality].shape
        statistics = self.statistics[self.depth]

        def scaled(x: np.ndarray) -> np.ndarray:
            frame = {"rgb": None, "depth": None} | {modality: x}
            small = frame_augmentation.moved(frame_augmentation.resized((height, width)), 0, frame)[modality]
            assert small is not None
            return small

        if modality == "rgb":
            return Reader(
                spec.modalities[modality],
                images.read_image,
                colours_of,
                lambda x: images.normalised(scaled(x)),
            )
        return Reader(
            spec.modalities[modality], self.depth_file, depth_of, lambda x: statistics.normalised(scaled(x))
        )

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        super().setup(stage)
        if self.task == "segmentation" and self.class_weights == "median_frequency":
            weights = self._class_weights(self.splits["train"].ids)
            self.spec = replace(self.spec, class_weights=weights)

    @property
    def fingerprint(self) -> str:
        """Hash of the ids and scenes of all splits, the task and the classes; the same for all forms on disk."""
        text = repr((super().fingerprint, self.spec.task, self.spec.classes))
        return short_hash(text)

    def _check_keys(self) -> None:
        problems = [
            f"data.{key}={getattr(self, key)} is not known; use {' or '.join(map(str, known))}"
            for key, known in {
                "incomplete": ("error", "allow"),
                "class_weights": ("median_frequency", "none"),
                **self.choices,
            }.items()
            if getattr(self, key) not in known
        ]
        if len(self.size) != 2 or min(self.size) < 1:
            problems.append(
                f"data.image_size={list(self.size)} is no [height, width]; use two whole numbers above 0"
            )
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            problems.append(f"data.scale={list(self.scale)} is no range; use [least, largest], both above 0")
        if problem := share_problem("data.validation", self.validation):
            problems.append(problem)
        if problems:
            raise UserError(str(Problems(problems)))

    def _complete(self, frames: Parts, damaged: Problems) -> Parts:
        """The frames, marked where a modality's file is absent. Adds those to `damaged` that must not lack one."""
        folders: dict[str, set[str]] = {}
        found = {split: dict(part) for split, part in frames.items()}
        for part in ("rgb", "depth", "label"):
            absent: dict[str, Any] = {part: None}
            lacking = [
                (split, name, place)
                for split, of_split in found.items()
                for name, frame in of_split.items()
                if isinstance(place := getattr(frame, part), Path) and not exists(place, folders)
            ]
            if part != "label" and self.incomplete == "allow":
                for split, name, _ in lacking:
                    found[split][name] = replace(found[split][name], **absent)
                if lacking:
                    log.warning(
                        "no %s of %s; kept without", part, summarised([name for _, name, _ in lacking])
                    )
            else:
                remedy = "" if part == "label" else "; or keep them without: data.incomplete=allow"
                told = [f"{name}: {place}" for _, name, place in lacking]
                damaged.add(f"no {part} of", told, f"get the files again{remedy}")
        return found

    def _class_weights(self, ids: Sequence[str]) -> tuple[float, ...]:
        """Over the training frames of those ids; remembered until their labels change."""
        places = {name: self.frames["train"][name].label for name in ids}
        files = {place for place in places.values() if isinstance(place, Path)} | set(self.source.tables)
        rows = [place for place in places.values() if not isinstance(place, Path)]
        count = self.spec.num_classes

        def label(name: str) -> np.ndarray:
            try:
                return self.source.label(places[name])
            except UserError as error:
                raise UserError(
                    f"sample {name}: {error}, or leave out such samples with data.corrupt=skip"
                ) from error

        def count_classes() -> list[float]:
            log.info("counting the classes of %d labels, once", len(ids))
            return median_frequency(map(label, ids), count)

        options = [type(self).__name__, count, rows]
        return tuple(cached(home(), "class_weights", files, options, count_classes).tolist())
