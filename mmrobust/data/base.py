"""What all datasets share: the description of the data, keyed samples, loaders."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmrobust import keyed, missing
from mmrobust.data.loading import Collate, KeyedSampler, keyed_loader
from mmrobust.data.loading import Key as Key
from mmrobust.data.noise import Clean, SplitNoise
from mmrobust.errors import UserError

KINDS = ("image", "depth", "spectrogram", "sequence", "video", "vector")


@dataclass(frozen=True)
class Modality:
    """One kind of input. Shapes (without the batch): image and spectrogram (C, H, W), depth (1, H, W),
    sequence (C, T), video (C, T, H, W), vector (D,). Depth is metric, normalised by the dataset."""

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
    class_weights: tuple[float, ...] = ()  # of the pixels' losses, one a class; none: all are 1
    metrics: tuple[str, ...] = ()  # further families of metrics, see `evaluation.families`
    primary: str = ""  # the metric that selects and is reported; none: the task's own

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> DataSpec:
        modalities = {m: Modality(x["kind"], tuple(x["shape"])) for m, x in plain["modalities"].items()}
        lists = {n: tuple(plain.get(n, ())) for n in ("classes", "class_weights", "metrics")}
        return cls(**{**plain, "modalities": modalities, **lists})


@dataclass
class Sample:
    """One sample as a dataset gives it: float32 inputs, None where a modality is not on disk.

    In segmentation the target is (H, W) int64. In the training split it has the inputs' size; elsewhere its own, which
    may differ between samples: predictions are resized to it.
    """

    inputs: Mapping[str, Tensor | None]
    target: Tensor | int
    noise_level: Mapping[str, float] | None = None  # 0 (the default) is clean


class Split(Dataset, ABC):
    """One split: `read` from disk, `augment`, `corrupt` where the signal is still physical, `finish`.

    A subclass implements `read` and `finish`. In between a sample is what the dataset likes; for noise, a dict
    that holds an array for each modality: uint8 pixels (..., H, W) or (..., H, W, 3), magnitudes (F, T), floats.
    Every step must be a pure function of its arguments.
    """

    ids: Sequence[str]  # (N,) unique names
    targets: Sequence[int]  # (N,) classes; empty for segmentation
    present: np.ndarray  # (N, M) bool: what lies on disk
    noise: SplitNoise | None = None  # none at all if null; set by the DataModule
    magnitudes: bool = True  # whether spectrograms are |STFT| before `finish`, their logarithm after

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def read(self, key: Key) -> Any:
        """The raw sample: uint8 pixels, waveforms, metric depth."""

    def augment(self, raw: Any, key: Key) -> Any:
        return raw

    def corrupt(self, raw: Any, key: Key) -> Any:
        """The noise of the split's protocol."""
        return self.noise.corrupt(raw, key.epoch, key.index) if self.noise else raw

    @abstractmethod
    def finish(self, raw: Any, key: Key) -> Sample:
        """Tensors: spectrograms, normalised images."""

    def verify(self, index: int) -> None:
        """Read all that any epoch may read of a sample; raises UserError if that fails."""
        self.read(Key(0, index))

    def noise_levels(self, epoch: int) -> np.ndarray:
        """Of every sample and modality: (N, M), 0 is clean."""
        return self.noise.levels(epoch) if self.noise else np.zeros(self.present.shape)

    def __getitem__(self, key: Key) -> Sample:
        sample = self.finish(self.corrupt(self.augment(self.read(key), key), key), key)
        return replace(sample, noise_level=self.noise.level(key.epoch, key.index)) if self.noise else sample


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
        noise: what is noisy, and how: `train` and `test` protocols and a `seed`.
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
            part = "train" if split == "train" else "test"
            protocol = self.missing[part]
            if problems := protocol.check(names):
                raise UserError(f"missing.{part}: " + "; ".join(problems))
            if not data.present.any(1).all():
                empty = data.ids[int(np.argmin(data.present.any(1)))]
                raise UserError(f"sample {empty!r} of split {split!r} has no modality at all; leave it out")
            if type(self.noise[part]) is not Clean:
                kinds = {m for m, x in self.spec.modalities.items() if x.kind == "spectrogram"}
                magnitudes = frozenset(kinds if data.magnitudes else ())
                data.noise = SplitNoise(
                    self.noise[part], self.noise["seed"], split, len(data), names, magnitudes
                )
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


def hold_out(targets: Sequence[int], share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split indices into (kept, held out), a `share` of every class, the same for the same seed."""
    labels = np.asarray(targets)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        order = np.argsort(keyed.uniform(rows.astype(np.int64), seed, "hold out"))
        held[rows[order[: round(share * len(rows))]]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
