"""Holds out a share of every class of train for splits without their own files, reproducibly for a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from mmrobust import keyed
from mmrobust.errors import UserError

T = TypeVar("T")


def share_problem(key: str, share: float, whole: str = "train") -> str:
    """Say why the share cannot be held out; empty if it can."""
    return "" if 0 <= share < 1 else f"{key}={share} is not a share of {whole}; use 0 <= share < 1"


def hold_out(targets: Sequence[int], share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split indices into (kept, held out), with a `share` of every class held out; equal seeds yield equal splits."""
    labels = np.asarray(targets)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        order = np.argsort(keyed.uniform(rows.astype(np.int64), seed, "hold out"))
        held[rows[order[: round(share * len(rows))]]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def hold_out_validation(
    targets: Sequence[int], share: float, seed: int, samples: str
) -> tuple[np.ndarray, np.ndarray]:
    """Split the indices of train into (kept, held out for validation) by `hold_out`; a share of 0 holds out none.

    Args:
        targets: (N,) classes of train.
        share: data.validation.
        seed: data.seed.
        samples: the word for samples in messages.

    Raises:
        UserError: `share` is not in [0, 1), or one of the two parts would be empty.
    """
    if problem := share_problem("data.validation", share):
        raise UserError(problem)
    kept, held = hold_out(targets, share, seed)
    if share and not (len(kept) and len(held)):
        raise UserError(
            f"data.validation={share} of {len(targets)} {samples} leaves {len(kept)} for training and {len(held)} for "
            "validation; change it, or set 0 for no validation split"
        )
    return kept, held


def with_validation(
    train: Mapping[str, T],
    test: Mapping[str, T],
    targets: Sequence[int],
    share: float,
    seed: int,
    samples: str,
) -> dict[str, Mapping[str, T]]:
    """Make the splits {name: {id: sample}} of a dataset without an official validation split; a share of 0 makes no
    `val`."""
    names = list(train)
    kept, held = (
        {names[i]: train[names[i]] for i in rows}
        for rows in hold_out_validation(targets, share, seed, samples)
    )
    return {"train": kept, "val": held, "test": test} if held else {"train": kept, "test": test}
