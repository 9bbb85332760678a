"""What a sweep costs beside its runs: time and memory, over many small runs in one process."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer

from mmrobust.run import main

RUNS, QUICK, WARM = 100, 4, 10  # runs; with --quick; those after which memory is looked at
SMALL = {
    "method": "fusion",
    "data": "synthetic, 64 generated samples a split",
    "encoder": "tiny, width 8",
    "epochs": 1,
}
CHOICES = [
    "method=fusion",
    "encoder.width=8",
    "data=synthetic",
    "data.num_train=64",
    "data.num_val=64",
    "data.num_test=64",
    "data.batch_size=32",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
]


def sweep_overhead(quick: bool) -> dict[str, Any]:
    """Wall time for each run of a sweep, less that within the loops: fit, with its checkpoints, and test."""
    runs, wall, within, _ = measured(QUICK if quick else RUNS)
    return {
        "name": "sweep_overhead_seconds_per_run",
        "value": round((wall - sum(within)) / runs, 4),
        "unit": "s",
        "against": "the time within Trainer.fit and Trainer.test, which is the run itself",
        "conditions": SMALL
        | {"runs": runs, "run_seconds": round(sum(within) / runs, 4), "launcher": "basic"},
    }


def sweep_memory_growth(quick: bool) -> dict[str, Any]:
    """The slope of resident memory over the runs after the first few."""
    runs, _, _, memory = measured(QUICK if quick else RUNS)
    warm = min(WARM, runs // 2)
    slope = np.polyfit(np.arange(warm, runs), memory[warm:], 1)[0]
    return {
        "name": "sweep_memory_growth_mib_per_100_runs",
        "value": round(100 * float(slope), 2),
        "unit": "MiB",
        "against": f"resident memory after {warm} runs",
        "conditions": SMALL | {"runs": runs, "mebibytes": [round(memory[warm], 1), round(memory[-1], 1)]},
    }


@cache  # both lines are of the same runs
def measured(runs: int) -> tuple[int, float, list[float], list[float]]:
    """Number of runs, wall seconds of the sweep, for each run seconds in the loops and MiB at its end.

    In a forked process, whose first run is not counted: it imports.
    """
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def child() -> None:
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (the process ends with it)
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            sweep = ["-m", *CHOICES, f"paths.outputs={folder}"]
            assert main([*sweep, "seed=1000"]) == 0
            within: list[float] = []
            memory: list[float] = []
            Trainer.fit = timed(Trainer.fit, within)  # type: ignore[method-assign]
            Trainer.test = timed(Trainer.test, within, memory)  # type: ignore[method-assign]
            started = time.perf_counter()
            assert main([*sweep, f"seed=range({runs})"]) == 0
            queue.put((runs, time.perf_counter() - started, within, memory))

    process = context.Process(target=child)
    process.start()
    found: tuple[int, float, list[float], list[float]] = queue.get(timeout=3600)
    process.join()
    return found


def timed(
    call: Callable[..., Any], seconds: list[float], memory: list[float] | None = None
) -> Callable[..., Any]:
    @wraps(call)
    def noted(*args: Any, **keys: Any) -> Any:
        started = time.perf_counter()
        try:
            return call(*args, **keys)
        finally:
            seconds.append(time.perf_counter() - started)
            if memory is not None:
                memory.append(resident())

    return noted


def resident() -> float:
    """MiB of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
