"""Check a prepared folder, or one of the user's own, with what is officially known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrobust.errors import UserError
from mmrobust.files import expanded
from mmrobust.prepare.facts import of_record, show
from mmrobust.prepare.plan import Preparation
from mmrobust.prepare.record import read_manifest


def verify(dataset: str, module: Preparation, root: Path, options: Mapping[str, Any], workers: int) -> int:
    """Print the table; returns the exit status: 1 if something does not hold."""
    root = expanded(root)
    if not root.is_dir():
        unfinished = root.with_name(f"{root.name}.partial")
        more = (
            f"; {unfinished} is unfinished: give the command that began it again"
            if unfinished.is_dir()
            else ""
        )
        raise UserError(f"out={root} is no folder, so there is nothing to verify{more}")
    manifest = read_manifest(root)
    if manifest is not None and manifest.dataset != dataset:
        raise UserError(f"out={root} holds {manifest.dataset}, not {dataset}; name the dataset that it holds")
    made_with = options if manifest is None else {**options, **manifest.options}
    known = module.known(root, made_with)
    generated = manifest is not None and manifest.generated
    print(f"{module.TITLE} in {root}")
    holds = show([*known, *of_record(root, manifest, workers)], generated)
    print("all holds" if holds else "see what is marked NO")
    return 0 if holds else 1
