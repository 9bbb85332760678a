"""Published numbers beside our runs, only where both measured the same quantity. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mmrobust.reporting.runs import Run

# What must agree, whoever measured. A key that a published number does not have is not known of it.
ALWAYS = ("n", "split", "selection", "encoder", "epochs")
TRUST = ("paper", "log", "file name", "second hand")
STATUS = ("reproduced", "differs", "never run here", "reconstruction")


@dataclass(frozen=True)
class Published:
    """One row of a table of others.

    `setting` is what a run must share: ALWAYS, further keys of a result's `protocol`, `noise` as the test noise in
    words, overrides.
    """

    method: str
    data: str
    metric: str
    setting: Mapping[str, Any]
    values: Mapping[str, float]  # combination or `average` -> percent
    source: str
    trust: str

    def differences(self, ours: Mapping[str, str]) -> list[str]:
        """The settings in which a run differs from this row, or that are unknown, in words."""
        told = []
        for key in dict.fromkeys((*ALWAYS, *self.setting)):
            wanted, here = self.setting.get(key), ours.get(key, "not recorded")
            if wanted is None:
                told.append(f"{key} not known, here {here}")
            elif str(wanted) != here:
                told.append(f"{key} {wanted}, here {here}")
        return told


def measured(run: Run) -> dict[str, str]:
    """The settings of a run that are compared with those of published numbers."""
    n = max((count for count in run.counts.values() if count is not None), default=0)
    own = {"n": n, "encoder": run.origin.encoder, "epochs": run.origin.epochs}
    return run.table | run.row | {key: str(value) for key, value in own.items() if value is not None}


@cache
def published() -> list[Published]:
    """All published rows."""
    return [Published(**row) for row in _file()["results"]]


@cache
def recipe_status() -> dict[str, dict[str, str]]:
    """Recipe -> its status and the reason."""
    found: dict[str, dict[str, str]] = _file()["recipes"]
    return found


@cache
def _file() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    return found


def beside(runs: Sequence[Run]) -> tuple[list[Published], list[str]]:
    """The published rows that fit into a table of runs, and the reasons why the others do not fit.

    Args:
        runs: the comparable runs of a table.
    """
    rows, notes = [], []
    for row in published():
        ours = [run for run in runs if run.row.get("method", "").partition(" ")[0] == row.method]
        if not ours or (row.data, row.metric) != (ours[0].table["data"], ours[0].metric.name):
            continue
        if differences := min((row.differences(measured(run)) for run in ours), key=len):
            values = ", ".join(f"{name} {value:g}" for name, value in row.values.items())
            notes.append(
                f"published, not comparable: {row.method} on {row.data}: {values} ({'; '.join(differences)}; "
                f"{row.trust}: {row.source})"
            )
        else:
            rows.append(row)
    return rows, notes
