"""`plan=true`: which runs a command line means, and what they will take, from a few timed batches of each kind."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from mmrobust.config.compose import compose_config
from mmrobust.config.identity import config_hash, run_folder
from mmrobust.config.keys import NOT_IN_RECIPE
from mmrobust.config.overrides import key_of
from mmrobust.errors import as_user_error
from mmrobust.evaluation.results import is_complete
from mmrobust.sweeps.space import of_jobs
from mmrobust.sweeps.timing import measure

CHECKPOINTS = {"best": 1, "last": 1, "all": 2, "none": 0}


@dataclass
class Kind:
    """Runs that differ in nothing but their seeds."""

    config: DictConfig
    label: str
    states: dict[str, int] = field(default_factory=lambda: {"complete": 0, "interrupted": 0, "new": 0})

    @property
    def left(self) -> int:
        return self.states["interrupted"] + self.states["new"]


class Plan:
    """Collects runs, then times and prints them."""

    def __init__(self, config_dir: str | None) -> None:
        self.config_dir = config_dir
        self.kinds: dict[str, Kind] = {}
        self.teachers: set[str] = set()

    def add(self, config: DictConfig, overrides: Sequence[str] = ()) -> None:
        """Add a run, and the teacher that it needs; `overrides` tell it from the others."""
        if config.method.get("teacher") and config.method.teacher.run is None:
            from mmrobust.training.teacher_run import teacher_config

            teacher = teacher_config(config, self.config_dir)
            if teacher.paths.run not in self.teachers:  # shared by others
                self.teachers.add(teacher.paths.run)
                self._note(teacher, f"teacher ({teacher.choices.method})", Path(teacher.paths.run))
        told = " ".join(text for text in overrides if not text.startswith("seed="))
        self._note(
            config,
            told or f"{config.choices.method} on {config.choices.data}",
            run_folder(config),
        )

    def _note(self, config: DictConfig, label: str, folder: Path) -> None:
        kind = config_hash(config, NOT_IN_RECIPE)
        self.kinds.setdefault(f"{label} {kind}", Kind(config, label)).states[state_of(folder)] += 1

    def show(self) -> int:
        """Time each kind of which runs are left, and print.

        Returns:
            How many runs would fail.

        Raises:
            UserError: the only kind of runs would.
        """
        counts = {
            s: sum(kind.states[s] for kind in self.kinds.values()) for s in ("complete", "interrupted", "new")
        }
        total = sum(counts.values())
        print(f"plan: {total} runs, {', '.join(f'{count} {state}' for state, count in counts.items())}")
        seconds, checkpoints, predictions, failing = 0.0, 0, 0, 0
        for kind in self.kinds.values():
            if not kind.left:
                print(f"  {sum(kind.states.values())} × {kind.label}: complete")
                continue
            try:
                cost = measure(kind.config, self.config_dir)
            except Exception as error:
                mistake = as_user_error(error)
                if mistake is None or len(self.kinds) == 1:
                    raise
                print(f"  {kind.left} × {kind.label}: would fail: {mistake}", flush=True)
                failing += kind.left
                continue
            print(
                f"  {kind.left} × {kind.label}: {duration(cost.seconds)} each (training {duration(cost.train)}, "
                f"validation {duration(cost.validation)}, test {duration(cost.test)})",
                flush=True,
            )
            seconds += kind.left * cost.seconds
            checkpoints += kind.left * CHECKPOINTS[kind.config.keep] * cost.checkpoint
            predictions += kind.left * cost.predictions
        keeps = ", ".join(sorted({kind.config.keep for kind in self.kinds.values()}))
        outputs = Path(next(iter(self.kinds.values())).config.paths.outputs).resolve()
        there = next(path for path in (outputs, *outputs.parents) if path.exists())
        print(f"time: about {duration(seconds)} on this machine, one run after another")
        print(
            f"disk: about {size(checkpoints + predictions)} (checkpoints {size(checkpoints)} with keep={keeps}, "
            f"predictions {size(predictions)}); {size(shutil.disk_usage(there).free)} are free"
        )
        print("nothing was started", flush=True)
        return failing


def plan_run(config: DictConfig, config_dir: str | None) -> None:
    """Print what one run takes."""
    plan = Plan(config_dir)
    plan.add(config)
    plan.show()


def plan_sweep(given: Sequence[str], config_dir: str | None, config: DictConfig) -> int:
    """Print what a sweep takes; returns how many runs would fail.

    The trials of a search are taken to last as long as one with the first of the listed values.

    Args:
        given, config_dir: as of `sweep`.
        config: what the first value of everything listed gives.
    """
    from mmrobust.sweeps.space import grid

    plan = Plan(config_dir)
    varied = {o.key_or_group for o in of_jobs(given) if o.is_sweep_override()}
    if config.sweep.kind == "grid":
        for job in grid(given):
            shown = [text for text in job if key_of(text) in varied]
            plan.add(compose_config(job, config_dir), shown)
    elif config.sweep.kind == "optuna":
        _add_study(plan, given, config)
    else:
        from mmrobust.sweeps.fair import fresh_seeds, studies

        seeds = fresh_seeds(config)
        for line, one, name in studies(given, config_dir, config):
            _add_study(plan, line, one, name)
            label = f"{one.choices.method}, the best values with seeds {', '.join(map(str, seeds))}"
            states = {"complete": 0, "interrupted": 0, "new": len(seeds)}
            plan.kinds[f"final {label}"] = Kind(one, label, states)
    return plan.show()


def _add_study(plan: Plan, given: Sequence[str], config: DictConfig, name: str | None = None) -> None:
    from mmrobust.sweeps.storage import compare, finished, found, stored

    study = found(given, config, name)
    before, done = stored(study.storage, study.name), 0
    if before is not None:
        compare(before, study.space, study.fixed, config_hash(config), study.storage)
        done = min(finished(before), config.sweep.trials)
    states = {"complete": done, "interrupted": 0, "new": config.sweep.trials - done}
    plan.kinds[f"study {study.name}"] = Kind(config, f"trial of study {study.name}", states)


def state_of(folder: Path) -> str:
    """Of a run: complete, interrupted or new."""
    if is_complete(folder):
        return "complete"
    return "interrupted" if (folder / "checkpoints" / "last.ckpt").is_file() else "new"


def duration(seconds: float) -> str:
    """As people say it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Bytes, as people say it."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
