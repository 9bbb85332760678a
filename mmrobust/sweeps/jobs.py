"""One job of a sweep: how it runs, wherever a launcher puts it, how it ended, and how it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mmrobust.config.compose import compose_config, with_choices
from mmrobust.config.identity import run_folder
from mmrobust.config.trust import trusting
from mmrobust.errors import Stopped, as_user_error, unread_output
from mmrobust.evaluation.results import is_complete
from mmrobust.training.children import stop_signals
from mmrobust.training.claims import POOL, Pool
from mmrobust.training.devices import place
from mmrobust.training.lifecycle import execute
from mmrobust.training.processes import led
from mmrobust.training.terminal import as_job, say

AGAIN = "the same command goes on with what is not complete"
PARALLEL = ("joblib", "submitit_local", "ray")  # launchers whose jobs share a terminal
STOP = "stop"  # a file: no job begins any more


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `status` is complete, skipped (it had been complete before), failed, or, where the sweep was
    stopped, saved or unstarted."""

    number: int
    overrides: list[str]
    status: str
    folder: str | None
    message: str = ""


def write_outcome(told: Path, outcome: Outcome) -> None:
    """Leave it for the sweep, if that is still there."""
    part = told / f"{outcome.number:06}.part"
    with suppress(FileNotFoundError):
        part.write_text(json.dumps(asdict(outcome)))
        part.replace(part.with_suffix(".json"))


def read_outcomes(told: Path) -> list[Outcome]:
    """What the jobs have left behind so far, in their order."""
    return [Outcome(**json.loads(path.read_text())) for path in sorted(told.glob("*.json"))]


@dataclass(frozen=True)
class Task:
    """What the jobs of a sweep share, wherever they run.

    Args:
        engine: the launcher's name.
        numbers: of the jobs that it was given, in their order.
        more: entries of modalities that some job's data has.
        config_dir: the user's folder of further configurations.
        told: where the sweep hears of them.
        pool: the devices that they share out.
        sweep: its process.
        trust: packages that its command line allows.
    """

    engine: str
    numbers: tuple[int, ...]
    more: tuple[str, ...]
    config_dir: str | None
    told: Path
    pool: Pool
    sweep: int
    trust: tuple[str, ...]


def run_job(config: DictConfig, *, task: Task) -> None:
    """One job, wherever the launcher runs it; in the first of its processes, if it started several."""
    hydra = HydraConfig.get()
    number = task.numbers[hydra.job.num]
    overrides = [text for text in hydra.overrides.task if text not in task.more]
    choices = hydra.runtime.choices
    token = POOL.set(task.pool)
    try:
        with (
            unread_output(),
            trusting(task.trust),
            as_job(number, parallel=task.engine in PARALLEL),
            _stoppable(task, number),
        ):
            led(lambda: _run(config, choices, overrides, number, task))
    except Stopped as stop:
        if task.engine == "submitit_slurm":
            _queue_again(stop)
        folder = run_folder(_own(config, choices, overrides, task))
        saved = (folder / "checkpoints" / "last.ckpt").is_file()
        status = "saved" if saved else "unstarted"
        write_outcome(task.told, Outcome(number, overrides, status, str(folder), str(stop)))
        if task.engine == "basic":  # Hydra's launcher would start the next job
            raise KeyboardInterrupt from stop
    finally:
        POOL.reset(token)
        if _orphan(task):  # joblib would wait for ever to hand the result to nobody
            sys.stdout.flush()
            os._exit(1)


def _orphan(task: Task) -> bool:
    """Whether the sweep of this worker of joblib is no more."""
    return task.engine == "joblib" and os.getppid() != task.sweep


def _run(config: DictConfig, choices: Any, overrides: list[str], number: int, task: Task) -> None:
    given = [text for text in overrides if not text.startswith("study=")]  # the rest is the sweep's own
    say(f"[{number}] {' '.join(given)}")
    outcome: dict[str, Any] = {"number": number, "overrides": given, "folder": None}
    try:
        config = _own(config, choices, overrides, task)
        skipped = is_complete(run_folder(config))
        folder = execute(config, given, again=False, config_dir=task.config_dir)
        outcome |= {"status": "skipped" if skipped else "complete", "folder": str(folder)}
    except Stopped:
        raise
    except (Exception, SystemExit) as error:
        mistake = as_user_error(error) if isinstance(error, Exception) else None
        if mistake:
            say(f"error: {mistake}", error=True)
        else:
            traceback.print_exc()
        outcome |= {"status": "failed", "message": str(mistake or repr(error)).partition("\n")[0]}
    write_outcome(task.told, Outcome(**outcome))


def _own(config: DictConfig, choices: Any, overrides: list[str], task: Task) -> DictConfig:
    """A job's configuration: what Hydra composed, or anew with the modalities of its own data."""
    return compose_config(overrides, task.config_dir) if task.more else with_choices(config, choices)


# Stopping


def _queue_again(stop: Stopped) -> None:
    """End this task of a Slurm job without a result, for which the sweep waits, and have the job queued again.

    Slurm itself does that only with jobs that it killed. One that ends within the time of grace counts as finished:
    submitit's handler, which had the signal before training took it to save the state, asks for it. Not for a job that
    was cancelled.
    """
    from submitit.core.job_environment import JobEnvironment

    if not place().rank:
        command = ["scontrol", "show", "job", "--oneliner", os.environ["SLURM_JOB_ID"]]
        job = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        if "JobState=RUNNING" in job:
            signal.raise_signal(JobEnvironment._usr_sig())
    raise SystemExit(0 if place().rank else stop.status)


@contextmanager
def _stoppable(task: Task, number: int) -> Iterator[None]:
    """A worker that its sweep can stop: it is told where, and signals of the terminal reach the sweep alone.

    Raises:
        Stopped: asked to before or after training, or the sweep is no more.
    """
    if task.engine not in ("joblib", "submitit_local"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number, AGAIN)

    with suppress(OSError):
        os.setpgid(0, 0)
    before = signal.signal(signal.SIGTERM, stop)
    mark = task.told / f"{number:06}.pid"
    try:
        with suppress(FileNotFoundError):
            mark.write_text(str(os.getpid()))
        if _orphan(task) or not mark.is_file() or (task.told / STOP).exists():
            raise Stopped(signal.SIGTERM, AGAIN)
        yield
    finally:
        mark.unlink(missing_ok=True)
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_jobs(engine: str, told: Path, jobs: int) -> Iterator[None]:
    """What SIGTERM, Ctrl-C and a terminal that goes away do to a sweep: its jobs save their state and end, and no other
    begins. Jobs of Slurm stay.

    Args:
        engine: the launcher's name.
        told: where outcomes are left.
        jobs: how many there are.

    Raises:
        Stopped: after they have ended.
    """
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and received:  # which comes more than once
            return
        if engine not in ("joblib", "submitit_local"):
            queued = "submitted jobs stay in the queue (scancel ends them); " * (engine == "submitit_slurm")
            raise Stopped(number, queued + AGAIN)
        print(
            "stopping the jobs after their batch; once more stops them at once", file=sys.stderr, flush=True
        )
        received.append(number)
        (told / STOP).touch()  # before the marks are read: a job makes its mark, then looks for this
        for mark in told.glob("*.pid"):
            with suppress(FileNotFoundError, ProcessLookupError, ValueError):
                os.kill(int(mark.read_text()), signal.SIGTERM)

    handled = engine != "basic" and threading.current_thread() is threading.main_thread()
    before = {n: signal.signal(n, forward) for n in stop_signals()} if handled else {}
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if isinstance(stop := interrupt.__cause__, Stopped):  # of a job in this process
            raise Stopped(stop.status - 128, stopped_line(read_outcomes(told), jobs)) from stop
        raise
    except Exception:
        if not received:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise Stopped(received[0], stopped_line(read_outcomes(told), jobs))


# How far


def stopped_line(outcomes: Sequence[Outcome], jobs: int) -> str:
    """How far a sweep was when it was stopped, and how it goes on."""
    words = {"complete": "done", "skipped": "were complete", "failed": "failed", "saved": "saved"}
    counts = {word: sum(o.status == status for o in outcomes) for status, word in words.items()}
    counts["not started"] = jobs - sum(counts.values())
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count) + f"; {AGAIN}"


def progress_line(outcomes: Sequence[Outcome], jobs: int, seconds: float) -> str:
    """How many jobs are done, failed and left, and when the last will end by the pace so far.

    Args:
        seconds: since the sweep began.
    """
    count = {s: sum(o.status == s for o in outcomes) for s in ("complete", "skipped", "failed")}
    left, worked = jobs - len(outcomes), count["complete"] + count["failed"]
    text = f"sweep: {count['complete']} done"
    text += f", {count['skipped']} were complete" if count["skipped"] else ""
    text += f", {count['failed']} failed, {left} left"
    if left and worked:
        end = time.localtime(time.time() + left * seconds / worked)
        text += f"; the last ends about {time.strftime('%H:%M' if left * seconds / worked < 43200 else '%d %b %H:%M', end)}"
    return text
