"""One process's segment of a W&B run; an interrupted and resumed run has several segments with one id."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmrobust.files import write_text

STEP = "trainer/global_step"


class Segment:
    """What W&B is told, and a record of it that survives the process.

    W&B cannot take back a value, and what a killed process had logged offline is mostly lost with it (W&B writes
    blocks of 32 KiB). So `wandb_run.jsonl` in our run's folder, and moving with it, holds the id, every row that was
    logged, and where segments began and ended. A new segment logs again what got lost, and leaves out what a resumed
    training logs for the second time.

    Args:
        folder: of our run.
        hashed: its configuration's hash; what the file says of another one is forgotten.
    """

    def __init__(self, folder: Path, hashed: str) -> None:
        self.folder, self.path = folder, folder / "wandb_run.jsonl"
        head, *lines = _read(self.path) or [{}]
        known = head.get("id") if head.get("config_hash") == hashed else None
        self.id: str = os.environ.get("WANDB_RUN_ID") or known or secrets.token_hex(6)
        self.head = {"id": self.id, "config_hash": hashed}
        self.lines: list[dict[str, Any]] = lines if known == self.id else []
        rows = [line for line in self.lines if "metrics" in line]
        self.before = {name: row["step"] for row in rows for name in row["metrics"]}
        self.step = max(self.before.values(), default=0)  # the last logged step
        self.count = 0  # number of rows in the W&B run

    def begin(self, run: Any) -> None:
        """Go on in `run`, which has this id."""
        lost = self._lost(run)
        kept = [line for line in self.lines if line not in lost]
        lines = [self.head, *kept, {"segment": Path(run.sync_dir).name}]
        write_text(self.path, "".join(f"{json.dumps(line)}\n" for line in lines))
        self.count = run.starting_step
        for row in lost:
            self.log(run, row["metrics"], row["step"])

    def _lost(self, run: Any) -> list[dict[str, Any]]:
        """Rows of the segment before that W&B does not have; what it wrote offline is removed, for it is cut short."""
        last: list[dict[str, Any]] = []
        for line in self.lines:
            last = [line] if "segment" in line else [*last, line]
        if not last or "finished" in last[-1]:
            return []
        rows = [line for line in last if "metrics" in line]
        if last[0]["segment"].startswith("offline-"):
            shutil.rmtree(self.folder / "wandb" / last[0]["segment"], ignore_errors=True)
            return rows
        return [] if run.offline else [row for row in rows if row["row"] >= run.starting_step]

    def new(self, metrics: Mapping[str, Any], step: int) -> dict[str, Any]:
        """Those that the segments before have not logged at this step."""
        fresh = {name: value for name, value in metrics.items() if step > self.before.get(name, -1)}
        return fresh if set(fresh) - {"epoch"} else {}

    def log(self, run: Any, metrics: Mapping[str, Any], step: int) -> None:
        """Log a row, and record it."""
        run.log({**metrics, STEP: step})
        numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        self._append({"row": self.count, "step": step, "metrics": numbers})
        self.count, self.step = self.count + 1, max(self.step, step)

    def end(self) -> None:
        """W&B has written or sent everything."""
        self._append({"finished": True})

    def _append(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(f"{json.dumps(line)}\n")


def _read(path: Path) -> list[dict[str, Any]]:
    """The lines of a record; a last one that was cut short is none."""
    found: list[dict[str, Any]] = []
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            found.append(json.loads(line))
    return found
