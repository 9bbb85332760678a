"""`plan=true`: which runs a command line means, and what they will take, from a few timed batches of each kind."""

from __future__ import annotations

import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmrobust import config as configuration
from mmrobust.evaluation.results import is_complete
from mmrobust.space import distributions, firsts, parse, root

BATCHES = 3  # that are timed; the first warms up
CHECKPOINTS = {"best": 1, "last": 1, "all": 2, "none": 0}


@dataclass(frozen=True)
class Cost:
    """What one run takes: seconds and bytes."""

    train: float
    validation: float
    test: float
    checkpoint: int
    predictions: int

    @property
    def seconds(self) -> float:
        return self.train + self.validation + self.test


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
            from mmrobust.teacher import teacher_config

            teacher = teacher_config(config, self.config_dir)
            if teacher.paths.run not in self.teachers:  # shared by others
                self.teachers.add(teacher.paths.run)
                self._note(teacher, f"teacher ({teacher.choices.method})", Path(teacher.paths.run))
        told = " ".join(text for text in overrides if not text.startswith("seed="))
        self._note(
            config, told or f"{config.choices.method} on {config.choices.data}", configuration.run_folder(config)
        )

    def _note(self, config: DictConfig, label: str, folder: Path) -> None:
        kind = configuration.config_hash(config, configuration.NOT_IN_RECIPE)
        self.kinds.setdefault(f"{label} {kind}", Kind(config, label)).states[state_of(folder)] += 1

    def show(self) -> None:
        """Time each kind of which runs are left, and print."""
        counts = {s: sum(kind.states[s] for kind in self.kinds.values()) for s in ("complete", "interrupted", "new")}
        total = sum(counts.values())
        print(f"plan: {total} runs, {', '.join(f'{count} {state}' for state, count in counts.items())}")
        seconds, checkpoints, predictions = 0.0, 0, 0
        for kind in self.kinds.values():
            if not kind.left:
                print(f"  {sum(kind.states.values())} × {kind.label}: complete")
                continue
            cost = measure(kind.config, self.config_dir)
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


def plan_run(config: DictConfig, config_dir: str | None) -> None:
    """Print what one run takes."""
    plan = Plan(config_dir)
    plan.add(config)
    plan.show()


def plan_sweep(given: Sequence[str], config_dir: str | None, config: DictConfig) -> None:
    """Print what a sweep takes.

    The trials of a search are taken to last as long as one with the first of the listed values.

    Args:
        given, config_dir: as of `sweep`.
        config: what the first value of everything listed gives.
    """
    from mmrobust.sweep import grid

    plan = Plan(config_dir)
    varied = {o.key_or_group for o in parse(given) if o.is_sweep_override()}
    if config.sweep.kind == "grid":
        for job in grid(given):
            shown = [text for text in job if text.partition("=")[0].lstrip("+~") in varied]
            plan.add(configuration.compose_config(job, config_dir), shown)
    elif config.sweep.kind == "optuna":
        _add_study(plan, given, config, config.sweep.name)
    else:
        from mmrobust.fair import by_method, fresh_seeds

        seeds = fresh_seeds(config)
        for line in by_method(given, config_dir):
            own = [text for text in line if root(text) == "sweep"]
            one = configuration.compose_config([*own, *firsts(line)], config_dir)
            name = config.sweep.name and f"{config.sweep.name}_{one.choices.method}"
            _add_study(plan, line, one, name or f"{one.choices.method}_{one.choices.data}")
            label = f"{one.choices.method}, the best values with seeds {', '.join(map(str, seeds))}"
            plan.kinds[f"final {label}"] = Kind(one, label, {"complete": 0, "interrupted": 0, "new": len(seeds)})
    plan.show()


def _add_study(plan: Plan, given: Sequence[str], config: DictConfig, name: str | None) -> None:
    from mmrobust.storage import finished_trials, import_optuna, place
    from mmrobust.studies import check_search, default_name

    import_optuna()
    space = distributions(parse(given))
    check_search(space, config)
    name = name or default_name(config, space)
    where = place(config.sweep.storage, Path(config.paths.outputs) / "studies" / f"{name}.journal")
    done = min(finished_trials(where, name), config.sweep.trials)
    kind = Kind(config, f"trial of study {name}", {"complete": done, "interrupted": 0, "new": config.sweep.trials - done})
    plan.kinds[f"study {name}"] = kind


def state_of(folder: Path) -> str:
    """Of a run: complete, interrupted or new."""
    if is_complete(folder):
        return "complete"
    return "interrupted" if (folder / "checkpoints" / "last.ckpt").is_file() else "new"


def measure(config: DictConfig, config_dir: str | None) -> Cost:
    """Train, validate and test a few batches in a folder that is removed, on one device.

    A teacher that is still to be trained is stood in for by one of as few batches.
    """
    with tempfile.TemporaryDirectory(prefix="mmrobust-plan-") as folder:
        config = config.copy()
        OmegaConf.set_struct(config, False)
        if config.method.get("teacher") and config.method.teacher.run is None:
            from mmrobust.teacher import teacher_config

            teacher = teacher_config(config, config_dir)
            there = Path(teacher.paths.run)
            if not is_complete(there):
                there = Path(folder) / "teacher"
                _measure(teacher, there)
            config.method.teacher.run = str(there)
        return _measure(config, Path(folder) / "run")


def _measure(config: DictConfig, folder: Path) -> Cost:
    from mmrobust import training
    from mmrobust.checkpoints import build_method
    from mmrobust.evaluation.results import write_predictions
    from mmrobust.launch import count_devices

    folder.mkdir()
    devices = count_devices(config)
    limits = {key: config.trainer[f"limit_{key}_batches"] for key in ("train", "val", "test")}
    epochs, steps = config.trainer.max_epochs, config.trainer.max_steps
    config.paths.run, config.logger, config.callbacks = str(folder), {}, {}
    config.data.batch_size = max(config.data.batch_size // devices, 1)
    config.trainer.update(
        devices=1, num_nodes=1, strategy="auto", enable_progress_bar=False, enable_model_summary=False,
        max_steps=-1, min_steps=None, min_epochs=None, max_time=None, check_val_every_n_epoch=1, val_check_interval=None,
    )  # fmt: skip
    if "inferred" in config.data and config.data.inferred is None:
        config.data.inferred = configuration.construct(config.data).infer()
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    training.start_process(folder, config)
    data = configuration.construct(config.data)
    data.validation_split = "test" if config.selection == "paper" else "val"
    data.setup()
    counts = {
        "train": _limited(len(data.loader("train", shuffle=True)), limits["train"]),
        "val": _limited(len(data.loader(data.validation_split)), limits["val"])
        if data.validation_split in data.splits
        else 0,
        "test": _limited(len(data.loader("test")), limits["test"]),
    }
    for key, count in counts.items():
        config.trainer[f"limit_{key}_batches"] = min(count, BATCHES)
    method = build_method(config, data.spec)
    trainer, times = training.build_trainer(config, folder, method), batch_times()
    trainer.callbacks.extend([times, training.Position(0.0, training.monitored(method))])  # type: ignore[attr-defined]
    trainer.fit(method, datamodule=data)
    trainer.test(method, datamodule=data, verbose=False)
    each = times.seconds
    if epochs == -1 or 0 < steps < epochs * counts["train"]:
        epochs = math.ceil(max(steps, 0) / max(counts["train"], 1))
    predictions = method.results.predictions
    written = 0 if predictions is None else write_predictions(folder, predictions).stat().st_size
    files = [path.stat().st_size for path in (folder / "checkpoints").glob("*.ckpt")]
    return Cost(
        train=epochs * counts["train"] * each("train"),
        validation=epochs // config.trainer.check_val_every_n_epoch * counts["val"] * each("val"),
        test=counts["test"] * each("test"),
        checkpoint=max(files, default=0),
        predictions=round(written * counts["test"] / max(min(counts["test"], BATCHES), 1)),
    )


def batch_times() -> Any:
    """A callback that ends training after one epoch; its `seconds("train")` is a batch's, its reading included."""
    from lightning import Trainer
    from lightning.pytorch.callbacks import Callback

    class BatchTimes(Callback):
        def __init__(self) -> None:
            self.at: dict[str, list[float]] = {"train": [], "val": [], "test": []}

        def note(self, part: str) -> None:
            self.at[part].append(time.perf_counter())

        def seconds(self, part: str) -> float:
            between = [after - before for before, after in pairwise(self.at[part])]
            return statistics.median(between[1:] or between) if between else 0.0

        def on_train_epoch_start(self, *_: Any) -> None:
            self.note("train")

        def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.should_stop = True

        def on_train_batch_end(self, *_: Any) -> None:
            self.note("train")

        def on_validation_epoch_start(self, *_: Any) -> None:
            self.note("val")

        def on_validation_batch_end(self, *_: Any) -> None:
            self.note("val")

        def on_test_epoch_start(self, *_: Any) -> None:
            self.note("test")

        def on_test_batch_end(self, *_: Any) -> None:
            self.note("test")

    return BatchTimes()


def _limited(count: int, limit: int | float | None) -> int:
    """Batches that Lightning takes with `limit_..._batches`."""
    if limit is None:
        return count
    return min(count, limit) if isinstance(limit, int) else int(count * limit)


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
