"""What the terminal shows of a run: lines that do not break a progress bar, and less where many runs share it. Imports
no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from mmrobust.training.devices import place

JOB = "MMROBUST_JOB"  # the number of a sweep's job, for the processes that it starts
PARALLEL = "MMROBUST_PARALLEL"  # set where other jobs write to the same terminal


def say(text: str, *, error: bool = False) -> None:
    """A line of its own, above the progress bar if there is one."""
    file = sys.stderr if error else sys.stdout
    bars = sys.modules.get("lightning.pytorch.callbacks.progress.tqdm_progress")
    if bars is None:
        print(text, file=file, flush=True)
    else:
        bars.Tqdm.write(text, file=file)
        file.flush()


@contextmanager
def as_job(number: int, *, parallel: bool) -> Iterator[None]:
    """What is said within is said of one run of many."""
    set_here = {JOB: str(number)} | ({PARALLEL: "1"} if parallel else {})
    before = {name: os.environ.get(name) for name in (JOB, PARALLEL)}
    os.environ.update(set_here)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def job() -> int | None:
    """The number of the sweep's job that this process works for."""
    return int(number) if (number := os.environ.get(JOB)) else None


def shows_bar() -> bool:
    """Whether a progress bar can be drawn: on a terminal that no other job writes to."""
    return sys.stdout.isatty() and PARALLEL not in os.environ


def say_of_job(text: str) -> None:
    """A line, which begins with the job's number where others write lines, too."""
    say(f"[{job()}] {text}" if PARALLEL in os.environ else text)


def head(config: DictConfig, folder: Path) -> None:
    """The first lines of a run; of a sweep's job, the sweep has said them."""
    if place().rank or job() is not None:
        return
    experiment = f" (experiment={config.choices.experiment})" if config.choices.get("experiment") else ""
    say(f"{config.choices.method} on {config.choices.data}{experiment}, seed {config.seed}: {folder}")
    if "torch" not in sys.modules:
        say("loading torch ...")


def step(text: str) -> None:
    """What a single run does next, or has found out."""
    if place().rank == 0 and job() is None:
        say(text)
