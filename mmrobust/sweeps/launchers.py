"""Start the jobs of a sweep: in this process, or by joblib, submitit (this machine or Slurm), or Ray."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf.errors import OmegaConfBaseException

from mmrobust.config.build import check_classes
from mmrobust.config.compose import our_hydra, search_override
from mmrobust.config.hydra_rules import check_hydra
from mmrobust.config.identity import run_folder
from mmrobust.config.trust import trusted
from mmrobust.errors import Stopped, UserError, as_user_error
from mmrobust.evaluation.results import is_complete
from mmrobust.sweeps.composer import Composer
from mmrobust.sweeps.jobs import (
    STOP,
    Outcome,
    Task,
    progress_line,
    read_outcomes,
    run_job,
    stop_jobs,
    write_outcome,
)
from mmrobust.sweeps.needs import Need, fitted, groups, needs, prepare
from mmrobust.training.lifecycle import finish, tell_changed_files
from mmrobust.training.locks import locked, release, take
from mmrobust.training.terminal import say

# Class of a launcher -> its name here; any other class is "other".
ENGINES = {
    "BasicLauncher": "basic",
    "JoblibLauncher": "joblib",
    "LocalLauncher": "submitit_local",
    "SlurmLauncher": "submitit_slurm",
    "RayLauncher": "ray",
}

# Prefix of the outcomes folder within paths.outputs, and its lock, which the sweep holds.
PREFIX, LOCK = ".sweep-", "lock"
# Seconds for which a folder is kept whose lock is free: on a file system without locks, its sweep may still run.
A_WEEK = 7 * 24 * 3600


@dataclass(frozen=True)
class Launcher:
    """Starts jobs with the launcher that `hydra/launcher` chooses.

    Args:
        given: the sweep's overrides; those below `hydra.` choose and configure the launcher.
        more: overrides with the entries of modalities that a manifest names (see `check_command_line`).
        config_dir: the user's folder of further configurations.
    """

    given: Sequence[str]
    more: Sequence[str]
    config_dir: str | None

    def launch(self, jobs: Sequence[Sequence[str]]) -> list[Outcome]:
        """Run every job; the launcher decides on order and parallelism.

        A failed job does not stop the others. Jobs whose run is complete are not started.

        Args:
            jobs: the overrides of each job, without those of the sweep itself.

        Returns:
            The outcomes that the jobs have written, in the order of the jobs.

        Raises:
            Stopped: a signal ended the sweep.
            UserError: the launcher could not start the jobs, or lost a process.
        """
        with our_hydra():
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            master = hydra.compose_config(
                "config",
                [*self.given, *self.more, *search_override(self.config_dir)],
                RunMode.MULTIRUN,
            )
            check_hydra(master.hydra, self.given)
            check_classes(master.hydra.launcher)
            engine = ENGINES.get(master.hydra.launcher._target_.rpartition(".")[2], "other")
            composer = Composer(self.config_dir)
            looked = [self._look(job, composer) for job in jobs]
            required = {n: need for n, (folder, need) in enumerate(looked) if folder is None}
            outputs = Path(master.paths.outputs)
            outputs.mkdir(parents=True, exist_ok=True)
            _remove_left_over(outputs)
            with (
                tempfile.TemporaryDirectory(
                    prefix=PREFIX, dir=outputs, ignore_cleanup_errors=True
                ) as temporary,
                ExitStack() as stack,
            ):
                # It lies in paths.outputs, because the nodes of a cluster must see it, too.
                outcomes_dir = Path(temporary).resolve()
                stack.enter_context(locked(outcomes_dir / LOCK))
                for number, (job, (folder, _)) in enumerate(zip(jobs, looked, strict=True)):
                    if number not in required:
                        print(f"[{number}] {' '.join(job)}\n  complete: {folder}", flush=True)
                        write_outcome(outcomes_dir, Outcome(number, list(job), "skipped", str(folder)))
                pool = prepare(engine, master, [need for need in required.values() if need])
                if engine == "joblib" and master.hydra.launcher.n_jobs == 1:
                    # joblib with one worker runs the jobs in this process, too.
                    engine = "basic"
                calls = []
                for group in groups(engine, required):
                    task = Task(
                        engine,
                        tuple(group),
                        tuple(self.more),
                        self.config_dir,
                        outcomes_dir,
                        pool,
                        os.getpid(),
                        trusted(),
                    )
                    own = fitted(engine, master, required[group[0]])
                    launcher = Plugins.instance().instantiate_launcher(
                        config=own,
                        hydra_context=HydraContext(
                            config_loader=hydra.config_loader, callbacks=Callbacks(own)
                        ),
                        task_function=partial(run_job, task=task),
                    )
                    calls.append(
                        partial(launcher.launch, [[*jobs[n], *self.more] for n in group], initial_job_idx=0)
                    )
                if calls and engine.startswith("submitit"):
                    # Without Slurm's sacct, submitit would log a warning each time it asks for a job's state.
                    logging.getLogger("submitit").setLevel(logging.ERROR)
                    print(
                        f"logs of the jobs: {Path(master.hydra.sweep.dir, '.submitit').resolve()}", flush=True
                    )
                with _progress(outcomes_dir, len(jobs)), stop_jobs(engine, outcomes_dir, len(jobs)):
                    _call_all(engine, calls)
                return read_outcomes(outcomes_dir)

    def _look(self, job: Sequence[str], composer: Composer) -> tuple[Path | None, Need | None]:
        """Look at a job before it is started.

        Returns:
            The folder of its run if nothing is left to do, else None; what the job needs, else None. Both are None if
            the configuration is wrong: the job itself then reports the error.
        """
        try:
            config = composer.compose(job)
            folder = run_folder(config)
            # A complete run may still lack evaluations at some of the test rates.
            if not is_complete(folder) or config.test_rates:
                return None, needs(config)
            finish(folder, config)
            tell_changed_files(folder, config)
            return folder, None
        except (UserError, HydraException, OmegaConfBaseException):
            return None, None


def _remove_left_over(outputs: Path) -> None:
    """Remove the outcomes folders of killed sweeps: nobody holds their lock, which a living sweep takes at once."""
    for left in outputs.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > A_WEEK and (file := take(left / LOCK, wait=False)):
                release(file)
                shutil.rmtree(left, ignore_errors=True)


def _call_all(engine: str, calls: Sequence[Callable[[], Any]]) -> None:
    """Start all groups of jobs and wait for them: in parallel on Slurm, where this process only waits, else in turn."""
    errors: list[BaseException] = []

    def call(one: Callable[[], Any]) -> None:
        try:
            for returned in one():
                # Reading the value raises the exception of a job that did not catch it.
                _ = returned.return_value
        except Exception as error:
            errors.append(error)

    if engine == "submitit_slurm" and len(calls) > 1:
        started = [threading.Thread(target=call, args=(one,), daemon=True) for one in calls]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    else:
        for one in calls:
            call(one)
    for error in errors:
        if isinstance(error, Stopped) or as_user_error(error):
            raise error
        if engine == "submitit_slurm" and "srun" in str(error):
            raise UserError(
                f"hydra/launcher={engine}: {error}; start the sweep where Slurm's commands are, or take "
                "hydra/launcher=submitit_local or joblib"
            ) from error
        if type(error).__module__.partition(".")[0] in ("joblib", "submitit", "ray"):
            text = str(error).strip().splitlines() or [repr(error)]
            raise UserError(
                f"{type(error).__name__}: {text[-1]}; {engine} lost a process (no memory left?) or could not start it; "
                "the same command goes on with what is not complete"
            ) from error
        raise error


@contextmanager
def _progress(outcomes_dir: Path, jobs: int) -> Iterator[None]:
    """Print the sweep's progress whenever a job ends."""
    ended, started = threading.Event(), time.monotonic()

    def watch() -> None:
        last, over = 0, False
        while not over:
            over = ended.wait(0.5)
            outcomes = read_outcomes(outcomes_dir)
            if len(outcomes) > last and jobs > 1 and not (outcomes_dir / STOP).exists():
                last = len(outcomes)
                say(progress_line(outcomes, jobs, time.monotonic() - started))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
