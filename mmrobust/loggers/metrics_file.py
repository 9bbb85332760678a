"""Metrics in a CSV file that survives interruptions."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.utilities import rank_zero_only

from mmrobust.files import naming, replacing


class MetricsFile(loggers.logger.Logger):
    """`metrics.csv`: a row for every step at which something was logged, a column for every metric, and one for the
    epoch, counted from 1 like everywhere that it is shown.

    Unlike Lightning's CSV logger it keeps what an interrupted run had written.

    Args:
        save_dir: folder of the run.
    """

    name, version = "metrics", ""

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        self.columns: list[str] = ["step", "epoch"]
        self.written = 0  # rows that the file has already

    def keep(self, steps: int) -> None:
        """Take over what the file has of the first `steps` steps; the rest will be logged again."""
        if self.path.is_file():
            with self.path.open(newline="") as file:
                lines = [row for row in csv.DictReader(file) if None not in row.values()]  # none cut short
            self.rows = [row for row in lines if row["step"].isdigit() and int(row["step"]) < steps]
            self.rows = [{k: v for k, v in row.items() if v != ""} for row in self.rows]
            self.columns = list(lines[0]) if lines else ["step", "epoch"]

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """They lie in the run's config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = dict(metrics)
        # a test belongs to no epoch
        if (epoch := values.pop("epoch", None)) is not None and not any(
            k.startswith("test/") for k in values
        ):
            values["epoch"] = int(epoch) + 1
        if len(self.rows) == self.written or int(self.rows[-1]["step"]) != step:
            self.rows.append({"step": step})
        self.rows[-1] |= values

    @rank_zero_only
    def save(self) -> None:
        """Append the new rows; with a new column the file is written anew, whole or not at all."""
        new = self.rows[self.written :]
        columns = self.columns + sorted({key for row in new for key in row} - set(self.columns))
        if columns == self.columns and self.written:
            with naming(self.path), self.path.open("a", newline="") as file:
                csv.DictWriter(file, columns).writerows(new)
        elif new:
            with replacing(self.path) as part, part.open("w", newline="") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(self.rows)
        self.columns, self.written = columns, len(self.rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()
