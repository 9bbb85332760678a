"""A user's own data without code, from a CSV beside a folder of files: `data=manifest data.manifest=my.csv`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from mmrobust.data.audit import Audit
from mmrobust.data.base import DataModule
from mmrobust.data.listing import warn_of_changes
from mmrobust.data.reader import Reader
from mmrobust.data.spec import DataSpec
from mmrobust.data.split import Split
from mmrobust.data.table.columns import Column
from mmrobust.data.table.csv_file import TARGETS, content_hash
from mmrobust.data.table.description import description
from mmrobust.data.table.external import read_external
from mmrobust.data.table.inference import Inference
from mmrobust.data.table.masks import VOID
from mmrobust.data.table.rows import as_tensors
from mmrobust.data.table.samples import OPTIONS, Samples, read_samples
from mmrobust.errors import UserError
from mmrobust.files import expanded

AUGMENTATIONS = ("none", "flip", "crop_flip")

log = logging.getLogger(__name__)


class Manifest(DataModule):
    """A dataset whose modalities are columns of a CSV. The cells name files; an empty cell marks an absent modality.

    `infer` infers kinds and sizes from the first files, means and standard deviations from a part of train, and the
    classes from all rows. Each can also be set. See `table` for the CSV, `columns` for kinds of files, and
    conf/data/manifest.yaml for the keys.
    """

    def __init__(
        self,
        *,
        manifest: str,
        columns: Sequence[str] | None,
        content: str | None,
        root: str | None,
        modalities: Mapping[str, Mapping[str, Any]],
        inferred: Mapping[str, Any] | None,
        target: str | None,
        classes: Sequence[str] | int | None,
        validation: float,
        test: float,
        ignore_index: int | None,
        label_offset: int,
        class_weights: str | Sequence[float],
        augment: str,
        inspect: int,
        n_fft: int,
        hop: int,
        **base: Any,
    ) -> None:
        self.manifest = expanded(manifest)
        super().__init__(root=str(self.manifest.parent if root is None else root), **base)
        self.columns, self.content, self.modalities = columns, content, modalities
        self.inferred, self.target, self.augment = inferred, target, augment
        self.classes = classes if isinstance(classes, int | None) else [str(c) for c in classes]
        self.shares = {"test": test, "val": validation}
        self.of_masks: dict[str, Any] = {"ignore_index": ignore_index, "label_offset": label_offset}
        self.of_masks["class_weights"] = class_weights
        self.inspect, self.n_fft, self.hop = inspect, n_fft, hop

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        world = int(os.environ.get("WORLD_SIZE", 1))
        first, split = next(iter(self.splits.items()))
        least = max(len(split) // world, 1) * world
        if least < self.batch_size:
            log.info("%s has %d samples: data.batch_size=%d", first, len(split), least)
            self.batch_size = least

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        inferred = self.inferred or self.infer()
        splits = as_tensors(self.samples, inferred, self.augment, self.run_seed)
        if self.trained_on is not None:
            return self.trained_on, splits
        log.info("what the files are:\n%s", self.told(inferred))
        for shared in self.samples.shared:
            log.warning("%s", shared)
        warn_of_changes(self.manifest, inferred.get("files"), self.samples.listing.stamp())
        classes = tuple(inferred["classes"])
        modalities = {m: Column.from_dict(plain).modality for m, plain in inferred["modalities"].items()}
        void, task = VOID if inferred["masks"] else -100, TARGETS[self.samples.target]
        train, weights = len(splits["train"]), tuple(inferred["class_weights"])
        return DataSpec(task, len(classes), train, modalities, classes, void, weights), splits

    def reader(self, modality: str, spec: DataSpec) -> Reader:
        return Column.from_dict((self.inferred or {})["modalities"][modality]).reader

    @cached_property
    def samples(self) -> Samples:
        """The samples of the table. Raises: UserError: lists all problems with the rows."""
        if self.content not in (None, content_hash(self.manifest)):
            raise UserError(
                f"data.manifest={self.manifest} has changed since this run was made; take the old one, or make a new run"
            )
        audit = Audit(f"data.manifest={self.manifest}", self.corrupt == "skip", "samples")
        if self.augment not in AUGMENTATIONS:
            told = f"data.augment={self.augment} is not known; choose {', '.join(AUGMENTATIONS)}"
            audit.problems.append(told)
        shared: dict[str, Any] = {"of_masks": self.of_masks, "audit": audit}
        if self.trained_on is not None:
            return read_external(self.manifest, expanded(self.root), self.trained_on, **shared)
        return read_samples(
            self.manifest,
            expanded(self.root),
            columns=self.columns,
            modalities=self.modalities,
            target=self.target,
            classes=self.classes,
            shares=self.shares,
            seed=self.seed,
            **shared,
        )

    def infer(self) -> dict[str, Any]:
        """Infer kinds, sizes, statistics and classes from the files, see `Inference`."""
        samples = self.samples
        inference = Inference(
            entries=samples.entries,
            options={m: {**dict.fromkeys(OPTIONS), **self.modalities.get(m, {})} for m in samples.columns},
            classes=self.classes,
            skip=self.corrupt == "skip",
            seed=self.seed,
            inspect=self.inspect,
            n_fft=self.n_fft,
            hop=self.hop,
            **self.of_masks,
        )
        inferred = inference.infer(samples.target)
        maps = any(Column.from_dict(c).is_map for c in inferred["modalities"].values())
        if self.augment != "none" and not maps:
            raise UserError(
                f"data.augment={self.augment} has no effect: no column holds images or depth; leave it out"
            )
        return inferred | {"files": samples.listing.stamp()}

    def told(self, inferred: Mapping[str, Any]) -> str:
        """Describe the inferred properties and the keys that change them."""
        return description(self.samples, inferred, self.batch_size, self.seed)
