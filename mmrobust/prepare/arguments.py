"""The command line of `mmrobust.prepare`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmrobust.errors import UserError
from mmrobust.prepare.plan import DATASETS, defaults, preparation

NUMBERS = ("workers", "fps", "sample_rate")


@dataclass
class Arguments:
    """The command line, checked."""

    dataset: str
    values: dict[str, str] = field(default_factory=dict)
    options: dict[str, int] = field(default_factory=dict)

    def path(self, key: str) -> Path:
        """Raises: UserError: it was not given."""
        if not self.values.get(key):
            raise UserError(f"name the folder {key}=<folder>; see python -m mmrobust.prepare --help")
        return Path(self.values[key])

    @property
    def workers(self) -> int:
        return int(self.values.get("workers") or len(os.sched_getaffinity(0)))


def parse(argv: Sequence[str]) -> Arguments:
    """Raises: UserError: all that is wrong with a command line."""
    dataset, *rest = argv
    known = (*DATASETS, "synthetic")
    if dataset not in known:
        raise UserError(
            f"{dataset!r} is no dataset that can be prepared; begin with one of {', '.join(known)}"
        )
    keys = ["layout", "out"] if dataset == "synthetic" else ["raw", "out", "lists", "workers", "verify"]
    if dataset == "avmnist":
        keys.append("download")
    options = [] if dataset == "synthetic" else [*preparation(dataset).OPTIONS]
    found, problems = Arguments(dataset), []
    for text in rest:
        key, equals, value = text.partition("=")
        if not equals or key not in [*keys, *options]:
            problems.append(f"{text!r} is not known; give key=value with {', '.join([*keys, *options])}")
        elif key in found.values:
            problems.append(f"{key} was given twice")
        found.values[key] = value
    values = found.values
    if dataset == "synthetic" and values.get("layout") not in DATASETS:
        problems.append(f"layout={values.get('layout', '')} is not known; choose {', '.join(DATASETS)}")
    truth = {key: values[key] for key in ("verify", "download") if key in values}
    problems += [f"{k}={v} is neither true nor false" for k, v in truth.items() if v not in ("true", "false")]
    numbers = {key: values[key] for key in NUMBERS if key in values}
    problems += [
        f"{key}={value} is no whole number above 0"
        for key, value in numbers.items()
        if not (value.isdecimal() and int(value))
    ]
    if problems:
        raise UserError("; ".join(problems))
    if options:
        written = defaults(dataset)
        found.options = {key: int(values.get(key, written[key])) for key in options}
    return found
