"""What others published, beside our runs: only where both measured the same. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TRUST = ("paper", "log", "file name", "second hand")
STATUS = ("reproduced", "differs", "never run here", "reconstruction")


@dataclass(frozen=True)
class Published:
    """One row of a table of others.

    `setting` is what a run must share: keys of a result's `protocol`, and `noise`, the test noise in words.
    """

    method: str
    data: str
    metric: str
    setting: Mapping[str, Any]
    values: Mapping[str, float]  # combination or `average` -> percent
    source: str
    trust: str

    def differences(self, shared: Mapping[str, str]) -> list[str]:
        """What a run with these properties does otherwise, in words."""
        return [
            f"{key} {wanted}, here {shared.get(key, 'not recorded')}"
            for key, wanted in self.setting.items()
            if shared.get(key) != str(wanted)
        ]


@cache
def published() -> list[Published]:
    """All published rows."""
    return [Published(**row) for row in _file()["results"]]


@cache
def recipe_status() -> dict[str, dict[str, str]]:
    """Recipe -> its status, and why."""
    found: dict[str, dict[str, str]] = _file()["recipes"]
    return found


@cache
def _file() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    return found


def beside(shared: Mapping[str, str], methods: Sequence[str]) -> tuple[list[Published], list[str]]:
    """The published rows that may stand in a table of runs, and for the others why they may not.

    Args:
        shared: what all runs of the table share: `data`, `metric`, `noise` and the protocol, as strings.
        methods: the methods in the table.
    """
    rows, notes = [], []
    for row in published():
        if (row.data, row.metric) != (shared["data"], shared["metric"]) or row.method not in methods:
            continue
        if differences := row.differences(shared):
            values = ", ".join(f"{name} {value:g}" for name, value in row.values.items())
            notes.append(
                f"published, not comparable: {row.method} on {row.data}: {values} ({'; '.join(differences)}; "
                f"{row.trust}: {row.source})"
            )
        else:
            rows.append(row)
    return rows, notes
