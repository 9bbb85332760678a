"""The base class of all datasets: splits, availability masks, noise, loaders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from mmrobust import missing
from mmrobust.data.audit import Audit
from mmrobust.data.kinds import KINDS as KINDS
from mmrobust.data.loading import Collate, KeyedSampler, keyed_loader
from mmrobust.data.noise import Clean, SplitNoise
from mmrobust.data.reader import Reader
from mmrobust.data.spec import DataSpec
from mmrobust.data.split import Split
from mmrobust.data.table.csv_file import SUMMARIES
from mmrobust.errors import UserError
from mmrobust.files import short_hash


class DataModule(LightningDataModule, ABC):
    """Base of all datasets. A subclass implements `load`, which returns the spec and the splits.

    Args:
        root: folder of this dataset.
        batch_size: samples per step over all devices.
        workers: number of worker processes that prefetch; 0 reads in the training process.
        seed: seed of splits and pairings (`data.seed`), independent of the run's seed.
        run_seed: seed of order and augmentation.
        corrupt: `error` stops at an unreadable sample, `skip` leaves it out.
        missing: protocols of missing modalities, `train` and `test`, and their `seed`.
        noise: noise protocols, `train` and `test`, and their `seed`.
    """

    def __init__(
        self,
        *,
        root: str,
        batch_size: int,
        workers: int,
        seed: int,
        run_seed: int,
        corrupt: str,
        missing: Mapping[str, Any],
        noise: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.root, self.batch_size, self.workers = root, batch_size, workers
        self.seed, self.run_seed, self.corrupt, self.missing = seed, run_seed, corrupt, missing
        self.noise = noise
        self.validation_split = "val"  # "test" for selection=paper
        # The spec of the training data when a trained run is tested on other data, which has no split train.
        self.trained_on: DataSpec | None = None
        # (epoch, batches) that a resumed run has completed
        self.position = (0, 0)
        self.splits: dict[str, Split] = {}
        self.masks: dict[str, np.ndarray] = {}
        # ids of the damaged samples that corrupt=skip left out, by split
        self.skipped: dict[str, list[str]] = {}

    @abstractmethod
    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Check and index the files on disk; return the spec and the splits train, val and test.

        Raises:
            UserError: a file is missing or damaged; the message names the file and the remedy.
        """

    def reader(self, modality: str, spec: DataSpec) -> Reader:
        """The reader that loads one input of a modality and prepares it as for testing. Needs no `setup`.

        Args:
            modality: the modality's name.
            spec: description of the training data; `statistics` holds the statistics measured over it.

        Raises:
            UserError: the dataset has no reader for single inputs.
        """
        raise UserError(
            f"{type(self).__name__} does not say how a single input of {modality} is read; give tensors of the shape "
            f"{list(spec.modalities[modality].shape)}, prepared as the dataset prepares them"
        )

    @contextmanager
    def open_root(
        self, expected: str, *, samples: str = "samples", folders: Sequence[str] = ()
    ) -> Iterator[Audit]:
        """Open `root` for indexing; the problems found within the context are reported together at its end.

        Args:
            expected: ends the message "... set it to `expected`" if `root` is absent.
            samples: the word for samples in messages.
            folders: subfolders that must exist.

        Raises:
            UserError: `root` or a subfolder does not exist, or the audit found problems.
        """
        root = Path(self.root)
        absent = [name for name in folders if not (root / name).is_dir()]
        if absent or not root.is_dir():
            lacks = f"has no folder {' or '.join(absent)}" if absent else "does not exist"
            raise UserError(f"data.root={root} {lacks}; set it, or paths.data, to {expected}")
        audit = Audit(f"data.root={root}", self.corrupt == "skip", samples)
        yield audit
        audit.check()

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        self.spec, self.splits = self.load()
        names = list(self.spec.modalities)
        if taken := [m for m in names if m in SUMMARIES or {"+", "/"} & set(m)]:
            raise UserError(
                f"a modality cannot be called {taken[0]!r}: results have rows called {', '.join(SUMMARIES)}, and + and / "
                "between names; rename it"
            )
        owners: dict[str, str] = {}
        for split, data in self.splits.items():
            for sample in data.ids:
                if sample in owners:
                    raise UserError(
                        f"sample {sample!r} of split {split!r} is also in {owners[sample]!r}; ids must be unique, "
                        "so take one of the two out"
                    )
                owners[sample] = split
            part = "train" if split == "train" else "test"
            protocol = self.missing[part]
            if problems := protocol.check(names):
                raise UserError(f"missing.{part}: " + "; ".join(problems))
            if not data.present.any(1).all():
                empty = data.ids[int(np.argmin(data.present.any(1)))]
                raise UserError(f"sample {empty!r} of split {split!r} has no modality at all; leave it out")
            if type(self.noise[part]) is not Clean:
                kinds = {m for m, x in self.spec.modalities.items() if x.kind == "spectrogram"}
                data.noise = SplitNoise(
                    self.noise[part],
                    self.noise["seed"],
                    split,
                    len(data),
                    names,
                    magnitudes=frozenset(kinds if data.magnitudes else ()),
                    noiseless=frozenset(m for m, x in self.spec.modalities.items() if not x.traits.noisy),
                )
            self.masks[split] = missing.masks(protocol, names, self.missing["seed"], split, data.present)
            if self.corrupt == "skip":
                self._leave_out_damaged(split, data)
        if self.trained_on is not None:
            return
        self.spec = replace(self.spec, num_train=len(self.splits["train"]))
        if self.spec.task == "regression":
            mean, std = target_statistics(self.splits["train"].targets)
            self.spec = replace(self.spec, target_mean=mean, target_std=std)

    def _leave_out_damaged(self, name: str, split: Split) -> None:
        from mmrobust.data.damage import Kept, undamaged

        rows = undamaged(name, split, self.workers)
        if len(rows) < len(split):
            self.skipped[name] = sorted(set(split.ids) - {split.ids[i] for i in rows})
            self.splits[name], self.masks[name] = Kept(split, rows.tolist()), self.masks[name][rows]

    @property
    def fingerprint(self) -> str:
        """Hash of the ids and targets of all splits; runs with equal fingerprints used the same data."""
        splits = self.splits.items()
        text = repr([(name, list(s.ids), np.asarray(s.targets).tolist()) for name, s in splits])
        return short_hash(text)

    def loader(self, split: str, *, shuffle: bool = False) -> DataLoader:
        """The loader of a split for this rank; `shuffle` (training) drops the last, incomplete batch."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        epoch, batches = self.position if shuffle else (0, 0)
        if shuffle:
            self.position = (0, 0)
        return keyed_loader(
            split,
            self.splits[split],
            Collate(self.splits[split], self.spec, self.masks[split]),
            batch_size=self.batch_size,
            workers=self.workers,
            sampler=KeyedSampler(
                len(self.splits[split]),
                seed=self.run_seed,
                shuffle=shuffle,
                rank=rank,
                world=world,
                multiple=self.batch_size if shuffle else 1,
                epoch=epoch,
                skip=batches * self.batch_size // world,
            ),
        )

    def train_dataloader(self) -> DataLoader:
        return self.loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        return self.loader(self.validation_split) if self.validation_split in self.splits else []

    def test_dataloader(self) -> DataLoader:
        return self.loader("test")


def target_statistics(targets: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each column of (N, D); the deviation of a constant column is 1."""
    values = np.asarray(targets, dtype=np.float64)
    mean, std = values.mean(0), values.std(0)
    std = np.where(std > 1e-6 * (1 + np.abs(mean)), std, 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())
