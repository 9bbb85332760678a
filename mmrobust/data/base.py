"""What all datasets share: the description of the data, keyed samples, loaders."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mmrobust import keyed, missing
from mmrobust.batch import Batch
from mmrobust.errors import UserError

KINDS = ("image", "spectrogram", "sequence", "video", "vector")


@dataclass(frozen=True)
class Modality:
    """One kind of input. Shapes (without the batch): image and spectrogram (C, H, W), sequence (C, T),
    video (C, T, H, W), vector (D,)."""

    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class DataSpec:
    """What a method needs to know of a dataset; saved with every checkpoint as plain data."""

    task: str  # classification | segmentation
    num_classes: int
    num_train: int
    modalities: Mapping[str, Modality]
    classes: tuple[str, ...] = ()
    ignore_index: int = -100  # label of pixels that do not count

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> DataSpec:
        modalities = {m: Modality(x["kind"], tuple(x["shape"])) for m, x in plain["modalities"].items()}
        return cls(**{**plain, "modalities": modalities, "classes": tuple(plain["classes"])})


@dataclass(frozen=True, slots=True)
class Key:
    """Which sample, and in which epoch: all randomness of a sample is a function of it (and a seed)."""

    epoch: int
    index: int


@dataclass
class Sample:
    """One sample as a dataset gives it: float32 inputs, None where a modality is not on disk."""

    inputs: Mapping[str, Tensor | None]
    target: Tensor | int
    noise_level: Mapping[str, float] | None = None  # 0 (the default) is clean


class Split(Dataset, ABC):
    """One split: `read` from disk, `augment`, `corrupt` where the signal is still physical, `finish`.

    A subclass implements `read` and `finish`. In between a sample is whatever the dataset likes
    (say, a dict of arrays); every step must be a pure function of its arguments.
    """

    ids: Sequence[str]  # (N,) unique names
    targets: Sequence[int]  # (N,) classes; empty for segmentation
    present: np.ndarray  # (N, M) bool: what lies on disk

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def read(self, key: Key) -> Any:
        """The raw sample: uint8 pixels, waveforms, metric depth."""

    def augment(self, raw: Any, key: Key) -> Any:
        return raw

    def corrupt(self, raw: Any, key: Key) -> Any:
        return raw

    @abstractmethod
    def finish(self, raw: Any, key: Key) -> Sample:
        """Tensors: spectrograms, normalised images."""

    def verify(self, index: int) -> None:
        """Read all that any epoch may read of a sample; raises UserError if that fails."""
        self.read(Key(0, index))

    def __getitem__(self, key: Key) -> Sample:
        return self.finish(self.corrupt(self.augment(self.read(key), key), key), key)


class KeyedSplit(Dataset):
    """Pairs a split's samples with their keys, for the collating."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, key: Key) -> tuple[Key, Sample]:
        try:
            return key, self.split[key]
        except UserError as error:
            name = self.split.ids[key.index]
            raise UserError(
                f"sample {name}: {error}, or leave out such samples with data.corrupt=skip"
            ) from error


class KeyedSampler(Sampler[Key]):
    """Yields keys: a permutation of (seed, epoch) if shuffled, dealt out so that the ranks' n-th batches
    together are one process's n-th batch. Nothing is repeated to fill up."""

    def __init__(
        self, length: int, *, seed: int, shuffle: bool, rank: int, world: int, multiple: int = 1
    ) -> None:
        self.length = length // multiple * multiple  # whole global batches only
        self.total, self.seed, self.shuffle, self.rank, self.world = length, seed, shuffle, rank, world
        self.epoch = 0
        self.skip = 0  # keys to leave out of the next pass: where a resumed run goes on

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Key]:
        order = np.arange(self.total)
        if self.shuffle:
            order = np.random.default_rng(keyed.seed_of(self.seed, "order", self.epoch)).permutation(
                self.total
            )
        epoch = self.epoch if self.shuffle else 0
        mine = order[: self.length][self.rank :: self.world][self.skip :]
        self.skip = 0
        return (Key(epoch, int(index)) for index in mine)

    def __len__(self) -> int:
        return len(range(self.rank, self.length, self.world))


class Collate:
    """Samples to a Batch; `masks` (N, M) is what the missing protocol leaves."""

    def __init__(self, split: Split, spec: DataSpec, masks: np.ndarray) -> None:
        self.ids, self.modalities, self.masks = split.ids, spec.modalities, masks

    def __call__(self, pairs: Sequence[tuple[Key, Sample]]) -> Batch:
        index = np.array([key.index for key, _ in pairs], dtype=np.int64)
        samples = [sample for _, sample in pairs]
        inputs = {}
        for name, modality in self.modalities.items():
            rows = [sample.inputs[name] for sample in samples]
            inputs[name] = torch.stack([torch.zeros(modality.shape) if row is None else row for row in rows])
        levels = [[(s.noise_level or {}).get(m, 0.0) for m in self.modalities] for s in samples]
        return Batch(
            inputs=inputs,
            available=torch.from_numpy(self.masks[index]),
            target=torch.stack([torch.as_tensor(sample.target) for sample in samples]),
            noise_level=torch.tensor(levels, dtype=torch.float32),
            index=torch.from_numpy(index),
            ids=[self.ids[i] for i in index],
        )


class DataModule(LightningDataModule, ABC):
    """Base of all datasets. A subclass implements `load`, which returns the spec and the splits.

    Args:
        root: folder of this dataset.
        batch_size: samples a step, over all devices.
        workers: processes that read ahead; 0 reads in the training process.
        seed: splits and pairings (`data.seed`); does not follow the run's seed.
        run_seed: order and augmentation.
        corrupt: a sample that cannot be read is an `error`, or left out: `skip`.
        missing: what is missing: `train` and `test` protocols and a `seed`.
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
    ) -> None:
        super().__init__()
        self.root, self.batch_size, self.workers = root, batch_size, workers
        self.seed, self.run_seed, self.corrupt, self.missing = seed, run_seed, corrupt, missing
        self.validation_split = "val"  # "test" for selection=paper
        self.position = (0, 0)  # epoch and batches after which a resumed run goes on
        self.splits: dict[str, Split] = {}
        self.masks: dict[str, np.ndarray] = {}
        self.skipped: dict[str, list[str]] = {}  # damaged samples that were left out, by split

    @abstractmethod
    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Check and index what lies on disk; splits are called train, val and test.

        Raises:
            UserError: something is missing or damaged; names it and the remedy.
        """

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        self.spec, self.splits = self.load()
        names = list(self.spec.modalities)
        owners: dict[str, str] = {}
        for split, data in self.splits.items():
            for sample in data.ids:
                if sample in owners:
                    raise UserError(
                        f"sample {sample!r} of split {split!r} is also in {owners[sample]!r}; ids must be unique, "
                        "so take one of the two out"
                    )
                owners[sample] = split
            protocol = self.missing["train" if split == "train" else "test"]
            if problems := protocol.check(names):
                raise UserError(f"missing.{'train' if split == 'train' else 'test'}: " + "; ".join(problems))
            if not data.present.any(1).all():
                empty = data.ids[int(np.argmin(data.present.any(1)))]
                raise UserError(f"sample {empty!r} of split {split!r} has no modality at all; leave it out")
            self.masks[split] = missing.masks(protocol, names, self.missing["seed"], split, data.present)
            if self.corrupt == "skip":
                self._leave_out_damaged(split, data)
        self.spec = replace(self.spec, num_train=len(self.splits["train"]))

    def _leave_out_damaged(self, name: str, split: Split) -> None:
        from mmrobust.data.damage import Kept, undamaged

        rows = undamaged(name, split, self.workers)
        if len(rows) < len(split):
            self.skipped[name] = sorted(set(split.ids) - {split.ids[i] for i in rows})
            self.splits[name], self.masks[name] = Kept(split, rows.tolist()), self.masks[name][rows]

    @property
    def fingerprint(self) -> str:
        """Hash of the ids and classes of all splits: runs with the same one saw the same data."""
        text = repr([(name, list(s.ids), [int(t) for t in s.targets]) for name, s in self.splits.items()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def loader(self, split: str, *, shuffle: bool = False) -> DataLoader:
        """Batches of a split for this rank; training drops the last, incomplete batch."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if self.batch_size % world:
            raise UserError(
                f"data.batch_size={self.batch_size} counts the samples of all {world} devices and does not "
                f"divide by {world}; try {-(-self.batch_size // world) * world}"
            )
        data = self.splits[split]
        if len(data) < world:
            raise UserError(f"split {split!r} has {len(data)} samples for {world} devices; use fewer devices")
        if shuffle and len(data) < self.batch_size:
            raise UserError(
                f"the training split has {len(data)} samples, fewer than data.batch_size={self.batch_size}; "
                f"set data.batch_size to at most {len(data)}"
            )
        sampler = KeyedSampler(
            len(data),
            seed=self.run_seed,
            shuffle=shuffle,
            rank=rank,
            world=world,
            multiple=self.batch_size if shuffle else 1,
        )
        if shuffle:
            sampler.epoch, sampler.skip = self.position[0], self.position[1] * self.batch_size // world
            self.position = (0, 0)
        return DataLoader(
            KeyedSplit(data),
            batch_size=self.batch_size // world,
            sampler=sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=Collate(data, self.spec, self.masks[split]),
        )

    def train_dataloader(self) -> DataLoader:
        return self.loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        return self.loader(self.validation_split) if self.validation_split in self.splits else []

    def test_dataloader(self) -> DataLoader:
        return self.loader("test")


def hold_out(targets: Sequence[int], share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split indices into (kept, held out), a `share` of every class, the same for the same seed."""
    labels = np.asarray(targets)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        order = np.argsort(keyed.uniform(rows.astype(np.int64), seed, "hold out"))
        held[rows[order[: round(share * len(rows))]]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
