"""The loader of a split: the order of samples over epochs and ranks, and collation to batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mmrobust import keyed
from mmrobust.batch import Batch
from mmrobust.data.spec import DataSpec
from mmrobust.data.split import Key, Sample, Split
from mmrobust.data.workers import bytes_of, check_machine, start_worker
from mmrobust.errors import UserError


class KeyedSplit(Dataset):
    """Pairs each sample of a split with its key, which `Collate` needs."""

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
    """Yields this rank's keys in order, or in a permutation that depends on (seed, epoch) if `shuffle` is set.

    The n-th batches of all ranks together equal the n-th batch of a single process. No sample is repeated as padding.

    Args:
        length: number of samples of the split.
        seed: seed of the order.
        shuffle: whether to permute the samples in every epoch.
        rank, world: this process and the number of processes.
        multiple: the pass is cut to a multiple of this many samples, i.e. to whole global batches.
        epoch: the first epoch.
        skip: number of this rank's keys that the first pass omits, because a resumed run has used them.
    """

    def __init__(
        self,
        length: int,
        *,
        seed: int,
        shuffle: bool,
        rank: int,
        world: int,
        multiple: int = 1,
        epoch: int = 0,
        skip: int = 0,
    ) -> None:
        self.length = length // multiple * multiple
        self.total, self.seed, self.shuffle, self.rank, self.world = length, seed, shuffle, rank, world
        self.epoch = epoch
        self.skip = skip

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before every epoch."""
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
    """Collates samples to a Batch. `masks` (N, M) marks the modalities that the missing protocol keeps."""

    def __init__(self, split: Split, spec: DataSpec, masks: np.ndarray) -> None:
        self.ids, self.modalities, self.masks = split.ids, spec.modalities, masks
        self.ignore_index = spec.ignore_index

    def __call__(self, pairs: Sequence[tuple[Key, Sample]]) -> Batch:
        index = np.array([key.index for key, _ in pairs], dtype=np.int64)
        samples = [sample for _, sample in pairs]
        inputs = {}
        for name, modality in self.modalities.items():
            rows = [sample.inputs[name] for sample in samples]
            inputs[name] = torch.stack([modality.blank(1)[0] if row is None else row for row in rows])
        target, label_size = stack_labels([torch.as_tensor(s.target) for s in samples], self.ignore_index)
        levels = [[(s.noise_level or {}).get(m, 0.0) for m in self.modalities] for s in samples]
        return Batch(
            inputs=inputs,
            available=torch.from_numpy(self.masks[index]),
            target=target,
            noise_level=torch.tensor(levels, dtype=torch.float32),
            index=torch.from_numpy(index),
            ids=[self.ids[i] for i in index],
            label_size=label_size,
        )


def stack_labels(labels: Sequence[Tensor], ignore_index: int) -> tuple[Tensor, Tensor | None]:
    """Stack classes () to (B,) or label images (h, w) to (B, H, W); smaller images are padded at the bottom and right.

    Returns:
        The stacked labels, and the images' sizes (B, 2) int64 if they differ, else None.
    """
    if len({label.shape for label in labels}) == 1:
        return torch.stack(list(labels)), None
    size = torch.tensor([label.shape for label in labels])
    height, width = size.amax(0).tolist()
    padded = [
        F.pad(label, (0, width - label.shape[1], 0, height - label.shape[0]), value=ignore_index)
        for label in labels
    ]
    return torch.stack(padded), size


def keyed_loader(
    name: str, split: Split, collate: Collate, *, batch_size: int, workers: int, sampler: KeyedSampler
) -> DataLoader:
    """Build the loader of a split for one rank.

    Raises:
        UserError: the number of samples, the batch size and the number of devices do not fit together.
    """
    world = sampler.world
    if batch_size % world:
        raise UserError(
            f"data.batch_size={batch_size} counts the samples of all {world} devices and does not "
            f"divide by {world}; try {-(-batch_size // world) * world}"
        )
    if len(split) < world:
        raise UserError(f"split {name!r} has {len(split)} samples for {world} devices; use fewer devices")
    if sampler.shuffle and len(split) < batch_size:
        raise UserError(
            f"the training split has {len(split)} samples, fewer than data.batch_size={batch_size}; "
            f"set data.batch_size to at most {len(split)}"
        )
    size = batch_size // world
    # Ranks synchronise at every batch, so all need the same number of batches, although some have one sample more.
    if not sampler.shuffle:
        fewest, more = divmod(len(split), world)
        while more and fewest % size == 0:
            size += 1
    shapes = [modality.shape for modality in collate.modalities.values()]
    check_machine(workers, bytes_of(shapes, size), len(shapes) + 4)
    return DataLoader(
        KeyedSplit(split),
        batch_size=size,
        sampler=sampler,
        num_workers=workers,
        worker_init_fn=start_worker,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        collate_fn=collate,
    )
