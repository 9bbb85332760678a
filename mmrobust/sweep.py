"""A sweep: the runs that one command line names, on one of Hydra's launchers (this process, joblib, a cluster)."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from mmrobust import config as configuration
from mmrobust.errors import Stopped, UserError, as_user_error
from mmrobust.evaluation.results import is_complete
from mmrobust.fair import fair
from mmrobust.space import firsts, parse, require_lists, root
from mmrobust.studies import opened

KINDS = ("grid", "optuna", "fair")


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `status` is complete, skipped (it had been complete before) or failed."""

    number: int
    overrides: list[str]
    status: str
    folder: str | None
    message: str = ""


@dataclass(frozen=True)
class Launcher:
    """What starts jobs.

    Args:
        given: the sweep's own overrides, of which those of `hydra.` choose and set up the launcher.
        more: entries of modalities that some job's data has (see `check_command_line`).
        config_dir: the user's folder of further configurations.
    """

    given: Sequence[str]
    more: Sequence[str]
    config_dir: str | None

    def launch(self, jobs: Sequence[Sequence[str]]) -> list[Outcome]:
        """Run every job to its end, in the order and as parallel as the launcher likes; a failed one does not stop
        the others.

        Args:
            jobs: the overrides of each, without those of the sweep itself.
        """
        with configuration.our_hydra():
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            master = hydra.compose_config(
                "config", [*self.given, *self.more, *self._path()], RunMode.MULTIRUN
            )
            outputs = Path(master.paths.outputs)
            outputs.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                prefix=".sweep-", dir=outputs
            ) as told:  # which cluster nodes see, too
                task = partial(_job, more=self.more, config_dir=self.config_dir, told=Path(told))
                launcher = Plugins.instance().instantiate_launcher(
                    config=master,
                    hydra_context=HydraContext(
                        config_loader=hydra.config_loader, callbacks=Callbacks(master)
                    ),
                    task_function=task,
                )
                with _progress(Path(told), len(jobs)):
                    returns = launcher.launch([[*job, *self.more] for job in jobs], initial_job_idx=0)
                outcomes = read_outcomes(Path(told))
            for returned in returns:
                _ = returned.return_value  # raises what stopped the sweep
            return outcomes

    def _path(self) -> list[str]:
        if self.config_dir is None:
            return []
        path = json.dumps(configuration.search_path(self.config_dir), ensure_ascii=False)
        return [f"hydra.searchpath=[{path}]"]


def sweep(given: Sequence[str], more: Sequence[str], config_dir: str | None) -> int:
    """Run what a command line names; complete runs are skipped, interrupted ones go on.

    Args:
        given: the overrides, with what the configuration declares to be swept (see `space.with_declared`).
        more: entries of modalities that some job's data has (see `check_command_line`).
        config_dir: the user's folder of further configurations.

    Returns:
        The exit status: 1 if a run failed.
    """
    config = reference(given, config_dir)
    if config.plan:
        from mmrobust.plan import plan_sweep

        plan_sweep(given, config_dir, config)
        return 0
    launch = Launcher(given, more, config_dir).launch
    if config.sweep.kind == "grid":
        outcomes = launch(grid(given))
    elif config.sweep.kind == "optuna":
        with opened(given, config) as search:
            outcomes = search.advance(launch)
            search.report(config_dir)
    else:
        outcomes = fair(given, config_dir, config, launch)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        lines = (f"  {' '.join(outcome.overrides)}: {outcome.message}" for outcome in failed)
        print(f"{len(failed)} runs failed:\n" + "\n".join(lines), file=sys.stderr)
    return 1 if failed else 0


def reference(given: Sequence[str], config_dir: str | None) -> DictConfig:
    """The configuration that the first value of everything listed gives, `sweep` included.

    Raises:
        UserError: a kind of sweep that is not known.
    """
    own = [text for text in given if root(text) in ("sweep", "plan")]
    config = configuration.compose_config([*own, *firsts(given)], config_dir)
    if config.sweep.kind not in KINDS:
        raise UserError(f"sweep.kind={config.sweep.kind} is not known; choose {', '.join(KINDS)}")
    return config


def grid(given: Sequence[str]) -> list[list[str]]:
    """The overrides of every job: the product of what the overrides list. Those of `hydra.` are not a job's.

    Raises:
        UserError: an interval, which lists nothing.
    """
    parsed = parse(given)
    require_lists(parsed)
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(job) for job in jobs]


def read_outcomes(told: Path) -> list[Outcome]:
    """What the jobs have left behind so far, in their order."""
    return [Outcome(**json.loads(path.read_text())) for path in sorted(told.glob("*.json"))]


def _job(config: DictConfig, *, more: Sequence[str], config_dir: str | None, told: Path) -> None:
    """One job, wherever the launcher runs it."""
    from mmrobust.run import execute

    hydra = HydraConfig.get()
    overrides = [text for text in hydra.overrides.task if text not in more]
    given = [text for text in overrides if not text.startswith("study=")]  # the rest is the sweep's own
    print(f"[{hydra.job.num}] {' '.join(given)}", flush=True)
    outcome: dict[str, Any] = {"number": hydra.job.num, "overrides": given, "folder": None}
    try:
        if more:
            config = configuration.compose_config(overrides, config_dir)  # with this job's modalities
        else:
            config = configuration.with_choices(config, hydra.runtime.choices)
        skipped = is_complete(configuration.run_folder(config))
        folder = execute(config, given, again=False, config_dir=config_dir)
        outcome |= {"status": "skipped" if skipped else "complete", "folder": str(folder)}
    except Stopped:
        raise
    except (Exception, SystemExit) as error:
        mistake = as_user_error(error) if isinstance(error, Exception) else None
        if mistake:
            print(f"error: {mistake}", file=sys.stderr)
        else:
            traceback.print_exc()
        outcome |= {"status": "failed", "message": str(mistake or repr(error)).partition("\n")[0]}
    path = told / f"{hydra.job.num:06}.json"
    path.with_suffix(".part").write_text(json.dumps(asdict(Outcome(**outcome))))
    path.with_suffix(".part").replace(path)


@contextmanager
def _progress(told: Path, jobs: int) -> Iterator[None]:
    """Print how far the sweep is, whenever a job ends."""
    ended, started = threading.Event(), time.monotonic()

    def watch() -> None:
        last = 0
        while not ended.wait(0.5):
            outcomes = read_outcomes(told)
            if len(outcomes) > last:
                last = len(outcomes)
                print(progress_line(outcomes, jobs, time.monotonic() - started), flush=True)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        if outcomes := read_outcomes(told):
            print(progress_line(outcomes, jobs, time.monotonic() - started), flush=True)


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
