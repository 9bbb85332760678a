"""A labelled table that a run was not trained with, to be tested as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmrobust.data.audit import Audit
from mmrobust.data.listing import Listing
from mmrobust.data.spec import DataSpec
from mmrobust.data.table.csv_file import TARGETS, modality_columns, open_table, read_table
from mmrobust.data.table.entries import cells_of, read_entries, target_column
from mmrobust.data.table.masks import idle_keys
from mmrobust.data.table.samples import Samples
from mmrobust.data.targets import names_of
from mmrobust.errors import UserError


def read_external(
    path: Path,
    root: Path,
    spec: DataSpec,
    *,
    of_masks: Mapping[str, Any],
    audit: Audit,
) -> Samples:
    """All rows of a CSV as the split test; where it has a column split, those of its test and val.

    Args:
        path: the CSV; a modality of the run's that is no column of it is missing in all rows.
        root: the folder that names of files start from.
        spec: of the run's data, whose modalities, targets and classes these must be.
        of_masks: keys of `Manifest` that are for masks.
        audit: what is wrong with other keys.

    Raises:
        UserError: all that is wrong.
    """
    header, _ = open_table(path)
    kinds = {m: modality.kind for m, modality in spec.modalities.items()}
    there = [m for m in kinds if m in header]
    if not there:
        raise UserError(
            f"data.manifest={path} has no column of this run's modalities ({', '.join(kinds)}), but {', '.join(header)}"
        )
    target = next(name for name, task in TARGETS.items() if task == spec.task)
    if target not in header:
        raise UserError(
            f"data.manifest={path} has no column {target}, and this run does {spec.task}; add it, or, to predict without "
            "targets: python -m mmrobust.predict"
        )
    columns, table = modality_columns(path, there), read_table(path)
    if not root.is_dir():
        raise UserError(f"data.root={root} is no folder; the names in {path} start from it")
    listing = Listing(root)
    texts = frozenset(m for m in columns if kinds[m] == "text")
    entries = read_entries(table, columns, texts, target_column(table, target), listing, audit)
    if "split" in header:
        entries = {split: entries[split] for split in ("test", "val") if entries[split]}
        if not entries:
            audit.problems.append(
                "its column split names no row of test; leave the column out to test all rows"
            )
    else:
        entries = {"test": [entry for rows in entries.values() for entry in rows]}
    if target != "mask":
        audit.problems.extend(idle_keys(target, of_masks))
        names_of(target, cells_of(entries), list(spec.classes), audit.problems)
    audit.check()
    none = dict.fromkeys(kinds)
    whole = {
        split: [replace(entry, files=none | dict(entry.files)) for entry in rows]
        for split, rows in entries.items()
    }
    return Samples(path, list(kinds), target, whole, [], listing, [])
