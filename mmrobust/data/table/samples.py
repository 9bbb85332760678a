"""A user's table with its splits, and all that is wrong with it."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mmrobust import keyed
from mmrobust.data.audit import Audit
from mmrobust.data.held_out import hold_out, share_problem
from mmrobust.data.listing import Listing, in_two_splits
from mmrobust.data.table.csv_file import modality_columns, read_table
from mmrobust.data.table.entries import (
    Entries,
    cells_of,
    note_unseen,
    read_entries,
    target_column,
    text_columns,
)
from mmrobust.data.table.masks import idle_keys
from mmrobust.data.targets import TARGET_COLUMNS, names_of
from mmrobust.errors import Problems, UserError

OPTIONS = ("kind", "size", "mean", "std", "unit", "sample_rate")  # of a modality, None where it is inferred


@dataclass(frozen=True)
class Samples:
    """What a user's table holds.

    Args:
        path: the table.
        columns: the modalities.
        target: the column of the targets.
        entries: the samples of every split.
        how: what was done to get splits that the table does not name, in words.
        listing: the files.
        shared: those that rows of several splits name, in words.
    """

    path: Path
    columns: Sequence[str]
    target: str
    entries: Entries
    how: Sequence[str]
    listing: Listing
    shared: Sequence[str]


def read_samples(
    path: Path,
    root: Path,
    *,
    columns: Sequence[str] | None,
    modalities: Mapping[str, Mapping[str, Any]],
    target: str | None,
    classes: Sequence[str] | int | None,
    of_masks: Mapping[str, Any],
    shares: Mapping[str, float],
    seed: int,
    audit: Audit,
) -> Samples:
    """All rows of a CSV, and the splits.

    Args:
        path: the CSV.
        root: the folder that names of files start from.
        columns, modalities, target, classes, seed: keys of `Manifest`.
        of_masks: those of its keys that are for masks.
        shares: of train that are held out where the table does not name a split, by split.
        audit: what is wrong with other keys.

    Raises:
        UserError: all that is wrong.
    """
    names, table = modality_columns(path, columns), read_table(path)
    target = target_column(table, target)
    if not root.is_dir():
        raise UserError(f"data.root={root} is no folder; the names in {path} start from it")
    problems, listing = audit.problems, Listing(root)
    problems.extend(unknown_options(modalities, names))
    taken = [m for m in names if hasattr(nn.ModuleDict(), m)]
    problems.add("names that torch keeps for itself", taken, "rename these columns")
    texts = text_columns(table, names, {m: modalities.get(m, {}).get("kind") for m in names})
    entries = read_entries(table, names, texts, target, listing, audit)
    by_class, how = None, list[str]()
    if target != "mask":
        problems.extend(idle_keys(target, of_masks))
        outputs = names_of(target, cells_of(entries), classes, problems)
        by_class = outputs if TARGET_COLUMNS[target].by_class else None
    if not problems:
        entries, how = with_splits(entries, by_class, shares, seed)
        if target != "mask":
            note_unseen(entries, target, problems)
    audit.check()
    return Samples(path, names, target, entries, how, listing, note_shared(entries, listing))


def unknown_options(modalities: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Keys below `data.modalities` that nothing reads, in words."""
    found = []
    for name, options in modalities.items():
        known, path = (columns, name) if name not in columns else (OPTIONS, "")
        unknown = [name] if path else [f"{name}.{o}" for o in options if o not in OPTIONS]
        close = difflib.get_close_matches(unknown[0].rpartition(".")[2], known, n=1) if unknown else []
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        found += [f"data.modalities.{key} has no effect; {hint}" for key in unknown]
    return found


def with_splits(
    entries: Entries, classes: Sequence[str] | None, shares: Mapping[str, float], seed: int
) -> tuple[Entries, list[str]]:
    """The splits where some are not named: a share of every class of train, the same for the same seed; and in
    words, what was done."""
    how = []
    for split, share in shares.items():
        key = "data.validation" if split == "val" else "data.test"
        if problem := share_problem(key, share):
            raise UserError(problem)
        if entries[split] or not share:
            continue
        rows = entries["train"]
        labels = [classes.index(str(e.target)) if classes else 0 for e in rows]
        _, held = hold_out(labels, share, keyed.seed_of(seed, split))
        held = held if len(held) else _one(labels, seed, split)
        if not len(held):
            continue
        out = set(held.tolist())
        entries = entries | {
            split: [rows[i] for i in sorted(out)],
            "train": [e for i, e in enumerate(rows) if i not in out],
        }
        how.append(f"{split} held out of train, {key}={share}")
    for split in ("train", "test"):
        if not entries[split]:
            raise UserError(
                f"no row is left for the split {split!r}: there are {sum(map(len, entries.values()))} rows; "
                + ("set data.test above 0, or name it" if split == "test" else "name it")
                + " in the column split"
            )
    return {split: rows for split, rows in entries.items() if rows}, how


def _one(labels: Sequence[int], seed: int, split: str) -> np.ndarray:
    """One row of the most frequent class, if another is left of it."""
    if not labels:
        return np.array([], dtype=np.int64)
    label, count = Counter(labels).most_common(1)[0]
    rows = np.flatnonzero(np.asarray(labels) == label)
    drawn = rows[np.argsort(keyed.uniform(rows.astype(np.int64), seed, "one", split))]
    return drawn[: min(1, count - 1)]


def note_shared(entries: Entries, listing: Listing) -> list[str]:
    """Files that rows of several splits name, or copies of them, in words."""
    by_path = listing.by_path
    found = in_two_splits(
        (split, entry.line, by_path[file])
        for split, rows in entries.items()
        for entry in rows
        for file in entry.files.values()
        if isinstance(file, Path)
    )
    remedy = "what is tested was seen in training; keep them in one split"
    notes = Problems()
    notes.add("the same files in several splits", found, remedy)
    return notes
