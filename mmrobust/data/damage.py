"""Finds damaged samples once, before training, and leaves them out (data.corrupt=skip).

Because the search comes before training, all batches stay full, and all ranks, workers and resumed runs use the same
samples. It costs one pass over the files.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from torch.utils.data import DataLoader, Dataset

from mmrobust.data.progress import told_of
from mmrobust.data.split import Key, Sample, Split
from mmrobust.errors import UserError

log = logging.getLogger(__name__)


class Kept(Split):
    """A subset of a split, whose samples keep the augmentation and noise of the whole split."""

    def __init__(self, split: Split, rows: Sequence[int]) -> None:
        self.split, self.rows = split, rows
        self.ids = [split.ids[i] for i in rows]
        self.targets = [split.targets[i] for i in rows] if len(split.targets) else []
        self.present = split.present[rows]

    def noise_levels(self, epoch: int) -> np.ndarray:
        return self.split.noise_levels(epoch)[self.rows]

    def read(self, key: Key) -> Sample:
        return self.split[Key(key.epoch, self.rows[key.index])]

    def finish(self, raw: Sample, key: Key) -> Sample:
        return raw


class _Verdicts(Dataset):
    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> str | None:
        try:
            self.split.verify(index)
        except UserError as error:
            return str(error)
        return None


def undamaged(name: str, split: Split, workers: int) -> np.ndarray:
    """Find the rows of a split whose files can be read; log every other row.

    Raises:
        UserError: no sample can be read.
    """
    loader = DataLoader(_Verdicts(split), batch_size=32, num_workers=workers, collate_fn=list)
    batches = told_of(loader, len(loader), f"reading all samples of {name}, batches")
    verdicts = [verdict for batch in batches for verdict in batch]
    for sample, verdict in zip(split.ids, verdicts, strict=True):
        if verdict:
            log.warning("data.corrupt=skip leaves out sample %s of split %s: %s", sample, name, verdict)
    if all(verdicts):
        raise UserError(f"no sample of split {name!r} can be read; the first one: {verdicts[0]}")
    return np.flatnonzero([verdict is None for verdict in verdicts])
