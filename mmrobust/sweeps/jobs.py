"""One job of a sweep: run it in the launcher's worker, record its outcome, and stop it on a signal.

Jobs and their sweep communicate through files in one folder, the outcomes folder: a job writes `<number>.json` when it
ends and `<number>.pid` while it can be stopped; the sweep creates the marker file `stop`.
"""

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
from mmrobust.training.processes import on_leader
from mmrobust.training.terminal import as_job, say

AGAIN = "the same command goes on with what is not complete"
# Launchers whose jobs share a terminal.
PARALLEL = ("joblib", "submitit_local", "ray")
# Name of the marker file: once it exists, no further job starts.
STOP = "stop"


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    `status` is complete, skipped (the run was complete before), or failed; in a stopped sweep also saved or unstarted.
    """

    number: int
    overrides: list[str]
    status: str
    folder: str | None
    message: str = ""


def write_outcome(outcomes_dir: Path, outcome: Outcome) -> None:
    """Write an outcome to the outcomes folder. Without the folder, the sweep has ended and the outcome is dropped."""
    part = outcomes_dir / f"{outcome.number:06}.part"
    with suppress(FileNotFoundError):
        part.write_text(json.dumps(asdict(outcome)))
        part.replace(part.with_suffix(".json"))


def read_outcomes(outcomes_dir: Path) -> list[Outcome]:
    """Read the outcomes that exist so far, in the order of the jobs."""
    return [Outcome(**json.loads(path.read_text())) for path in sorted(outcomes_dir.glob("*.json"))]


@dataclass(frozen=True)
class Task:
    """Arguments that the jobs of a sweep share; the launcher sends them to its workers.

    Args:
        engine: the launcher's name.
        numbers: the numbers of the launcher's jobs within the sweep, in their order.
        more: overrides with the entries of modalities that a manifest names.
        config_dir: the user's folder of further configurations.
        outcomes_dir: the outcomes folder.
        pool: the devices that the jobs share.
        sweep: the process id of the sweep.
        trust: packages that the sweep's command line allows.
    """

    engine: str
    numbers: tuple[int, ...]
    more: tuple[str, ...]
    config_dir: str | None
    outcomes_dir: Path
    pool: Pool
    sweep: int
    trust: tuple[str, ...]


def run_job(config: DictConfig, *, task: Task) -> None:
    """Run one job in a worker of the launcher; if the worker has several ranks, rank 0 leads."""
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
            on_leader(lambda: _run(config, choices, overrides, number, task))
    except Stopped as stop:
        if task.engine == "submitit_slurm":
            _queue_again(stop)
        folder = run_folder(_own(config, choices, overrides, task))
        saved = (folder / "checkpoints" / "last.ckpt").is_file()
        status = "saved" if saved else "unstarted"
        write_outcome(task.outcomes_dir, Outcome(number, overrides, status, str(folder), str(stop)))
        # After any other exception, Hydra's launcher would start the next job.
        if task.engine == "basic":
            raise KeyboardInterrupt from stop
    finally:
        POOL.reset(token)
        # joblib would wait for ever to return the result to a sweep that is gone.
        if _orphan(task):
            sys.stdout.flush()
            os._exit(1)


def _orphan(task: Task) -> bool:
    """Whether this is a worker of joblib whose sweep has died."""
    return task.engine == "joblib" and os.getppid() != task.sweep


def _run(config: DictConfig, choices: Any, overrides: list[str], number: int, task: Task) -> None:
    # The sweep itself adds `study=`; users see and repeat the others.
    given = [text for text in overrides if not text.startswith("study=")]
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
    write_outcome(task.outcomes_dir, Outcome(**outcome))


def _own(config: DictConfig, choices: Any, overrides: list[str], task: Task) -> DictConfig:
    """The job's configuration. If the sweep added entries of modalities, it is composed again without them."""
    return compose_config(overrides, task.config_dir) if task.more else with_choices(config, choices)


# Stopping


def _queue_again(stop: Stopped) -> None:
    """Exit this task of a Slurm job without a result, so that the sweep keeps waiting, and requeue the job.

    Slurm requeues only jobs that it killed; a job that exits within the grace time counts as finished. So this raises
    the signal that submitit's handler answers by a requeue; training had replaced that handler by its own. A job that
    was cancelled is not requeued.
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
    """Let the sweep stop this worker: write its process id, and keep the terminal's signals away from it.

    Raises:
        Stopped: the sweep stopped this job before or after training, or has died.
    """
    if task.engine not in ("joblib", "submitit_local"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number, AGAIN)

    with suppress(OSError):
        os.setpgid(0, 0)
    before = signal.signal(signal.SIGTERM, stop)
    mark = task.outcomes_dir / f"{number:06}.pid"
    try:
        with suppress(FileNotFoundError):
            mark.write_text(str(os.getpid()))
        if _orphan(task) or not mark.is_file() or (task.outcomes_dir / STOP).exists():
            raise Stopped(signal.SIGTERM, AGAIN)
        yield
    finally:
        mark.unlink(missing_ok=True)
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_jobs(engine: str, outcomes_dir: Path, jobs: int) -> Iterator[None]:
    """Stop the jobs on SIGTERM, Ctrl-C or SIGHUP: running jobs save their state and end, and no further job starts.

    Jobs that were submitted to Slurm stay in its queue.

    Args:
        engine: the launcher's name.
        outcomes_dir: the outcomes folder.
        jobs: the number of jobs.

    Raises:
        Stopped: a signal was received and the jobs have ended.
    """
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        # SIGHUP is sent more than once and must not count as the user's second Ctrl-C.
        if number == signal.SIGHUP and received:
            return
        if engine not in ("joblib", "submitit_local"):
            queued = "submitted jobs stay in the queue (scancel ends them); " * (engine == "submitit_slurm")
            raise Stopped(number, queued + AGAIN)
        print(
            "stopping the jobs after their batch; once more stops them at once", file=sys.stderr, flush=True
        )
        received.append(number)
        # Created before the pid files are read: a job writes its pid file, then looks for this marker.
        (outcomes_dir / STOP).touch()
        for mark in outcomes_dir.glob("*.pid"):
            with suppress(FileNotFoundError, ProcessLookupError, ValueError):
                os.kill(int(mark.read_text()), signal.SIGTERM)

    handled = engine != "basic" and threading.current_thread() is threading.main_thread()
    before = {n: signal.signal(n, forward) for n in stop_signals()} if handled else {}
    try:
        yield
    except KeyboardInterrupt as interrupt:
        # With the basic launcher, the job ran in this process (see `run_job`).
        if isinstance(stop := interrupt.__cause__, Stopped):
            raise Stopped(stop.status - 128, stopped_line(read_outcomes(outcomes_dir), jobs)) from stop
        raise
    except Exception:
        if not received:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise Stopped(received[0], stopped_line(read_outcomes(outcomes_dir), jobs))


# Progress


def stopped_line(outcomes: Sequence[Outcome], jobs: int) -> str:
    """The progress of a stopped sweep as text, and how to resume it."""
    words = {"complete": "done", "skipped": "were complete", "failed": "failed", "saved": "saved"}
    counts = {word: sum(o.status == status for o in outcomes) for status, word in words.items()}
    counts["not started"] = jobs - sum(counts.values())
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count) + f"; {AGAIN}"


def progress_line(outcomes: Sequence[Outcome], jobs: int, seconds: float) -> str:
    """The numbers of jobs that are done, failed and left, and an estimate of when the last one ends.

    Args:
        outcomes: those so far.
        jobs: the number of jobs.
        seconds: the time since the sweep began.
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
