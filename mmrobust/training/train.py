"""Train and evaluate one run, whose configuration lies in its folder. `train` lists the steps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import AdvancedProfiler, SimpleProfiler
from omegaconf import DictConfig

from mmrobust.config.hidden import reveal
from mmrobust.config.identity import load_run_config
from mmrobust.data.base import DataModule
from mmrobust.errors import DivergenceError, UserError
from mmrobust.evaluation.description import describe
from mmrobust.evaluation.results import write_end
from mmrobust.reporting.run_table import in_one_line, show
from mmrobust.training.checkpoints import Checkpoint, checkpoint_path, load_weights
from mmrobust.training.monitors import check_monitors, early_stops, unknown_score
from mmrobust.training.outputs import write_outputs
from mmrobust.training.pruning import Pruning
from mmrobust.training.retention import kept_checkpoint
from mmrobust.training.session import (
    Training,
    begin,
    build_method,
    open_data,
    open_training,
    peak_memory,
)
from mmrobust.training.terminal import job, say_of_job, step
from mmrobust.training.trainer import describe_devices, tell, whole_trainer

log = logging.getLogger("mmrobust")


def train(folder: Path) -> dict[str, Any]:
    """Train, select a checkpoint, evaluate every combination on the test split, write the result.

    Args:
        folder: the run's folder with its `config.yaml`. The function writes `results.json`, `predictions.npz`,
            `combinations.png`, `panel.png`, `metrics.csv`, `checkpoints/` and `log.txt` into it.

    Returns:
        The content of `results.json`.
    """
    config = reveal(load_run_config(folder))
    begin(folder, config)
    step(f"reading {describe_source(config)} ...")
    data = open_data(config)
    step(describe_data(data))
    run = open_training(config, folder, data)
    # Counted before training, because FSDP then splits the parameters over the ranks.
    parameters = sum(p.numel() for p in run.method.parameters())
    step(f"network: {parameters:,} parameters, on {describe_devices(run.trainer)}")
    log_start(run)
    fit(run)
    seconds = run.position.seconds
    if is_pruned(run):
        return leave_pruned(run)
    chosen = chosen_checkpoint(run)
    # Read before the test, whose scores overwrite those of the last validation.
    score = run.position.score(run.trainer)
    tested = with_whole_network(run)
    selected = load_weights(tested.method, chosen).get("selection") if chosen.is_file() else None
    with recording_divergence(run):
        tested.trainer.test(tested.method, datamodule=data, verbose=False)
    results = describe(config, data, tested.method.results) | {
        "selection": {**(selected or score), "checkpoint": chosen.stem},
        "cost": cost(run, seconds, parameters),
    }
    if run.trainer.is_global_zero:
        print_profile(run)
        write_and_show(tested, results)
    for logger in run.trainer.loggers:
        if hasattr(logger, "log_results"):
            logger.log_results(results, folder, chosen)
        logger.finalize("success")
    return results


def describe_source(config: DictConfig) -> str:
    """Name and location of the data, for the log."""
    where = config.data.get("root") or config.data.get("manifest")
    return f"{config.choices.data}{f' in {where}' if where else ''}"


def describe_data(data: DataModule) -> str:
    """Sizes of the splits, modalities and number of classes, for the log."""
    sizes = ", ".join(f"{len(split)} {name}" for name, split in data.splits.items())
    return f"data: {sizes}; {', '.join(data.spec.modalities)}; {data.spec.num_classes} classes"


def log_start(run: Training) -> None:
    """Log the folder, method and data of the run, and its batch size and learning rate."""
    choices, resumed = run.config.choices, ", resumed" if run.resumed else ""
    log.info("run %s: %s on %s%s", run.folder, choices.method, choices.data, resumed)
    tell(run.config, run.method)


def fit(run: Training) -> None:
    """Train, from the beginning or from the last checkpoint of an interrupted run.

    Raises:
        DivergenceError: a loss or score is not finite. The run's folder then records the divergence.
        UserError: a callback monitors a score that is not logged, or training ended before its first step.
    """
    trainer = run.trainer
    run.position.start()
    watching: list[Callback] = [c for c in trainer.callbacks if not isinstance(c, Checkpoint)]  # type: ignore[attr-defined]
    check_monitors(watching, run.method, validates=run.data.validation_split in run.data.splits)
    try:
        with recording_divergence(run):
            trainer.fit(run.method, datamodule=run.data, ckpt_path=run.resumed, weights_only=True)
    except RuntimeError as error:
        if "conditioned on metric" not in str(error):
            raise
        raise unknown_score(watching, trainer) or error from error
    if not trainer.global_step:
        raise UserError(
            "training took not one step, so that there is nothing to evaluate: trainer.max_time, max_steps or "
            "limit_train_batches end it before"
        )
    if trainer.is_global_zero:
        for line in early_stops(watching, run.config.trainer.max_epochs):
            say_of_job(line)


@contextmanager
def recording_divergence(run: Training) -> Iterator[None]:
    """Write a divergence to the run's folder. It may occur on this rank alone, so every rank does this."""
    try:
        yield
    except DivergenceError as error:
        write_end(run.folder, run.config, "diverged", run.trainer.current_epoch, str(error))
        raise


def is_pruned(run: Training) -> bool:
    """Whether the pruner of a study has ended this trial."""
    callbacks: list[Callback] = run.trainer.callbacks  # type: ignore[attr-defined]
    return any(isinstance(callback, Pruning) and callback.pruned for callback in callbacks)


def leave_pruned(run: Training) -> dict[str, Any]:
    """Record that the study's pruner ended this trial, so that it is not run again. It has no test result."""
    for logger in run.trainer.loggers:
        logger.finalize("success")
    if not run.trainer.is_global_zero:
        return {}
    say_of_job(f"  pruned after epoch {run.trainer.current_epoch}: {run.folder}")
    return write_end(run.folder, run.config, "pruned", run.trainer.current_epoch)


def chosen_checkpoint(run: Training) -> Path:
    """The checkpoint to test: the one that `selection` asks for, or the last one if no best one was saved."""
    best = run.folder / "checkpoints" / "best.ckpt"
    last = run.config.selection == "last" or not best.is_file()
    return checkpoint_path(run.folder, "last") if last else best


def with_whole_network(run: Training) -> Training:
    """The run with a network that can be tested: FSDP leaves a shard on each rank, so a new, whole one is built."""
    if run.config.trainer.strategy != "fsdp":
        return run
    method = build_method(run.config, run.data.spec)
    return replace(run, method=method, trainer=whole_trainer(run.config, run.trainer, run.folder))


def cost(run: Training, seconds: float, parameters: int) -> dict[str, Any]:
    """The cost of training: seconds, epochs, device, samples per second, peak memory in MiB, number of parameters."""
    seen = run.trainer.fit_loop.epoch_loop.batch_progress.total.completed * run.data.batch_size
    return {
        "train_seconds": round(seconds, 3),
        "epochs": run.trainer.current_epoch,
        "device": describe_devices(run.trainer),
        "samples_per_second": round(seen / seconds, 2),
        "peak_memory_mib": peak_memory(),
        "parameters": parameters,
    }


def print_profile(run: Training) -> None:
    """Print the table of `trainer.profiler`, if one is set."""
    profiler = run.trainer.profiler  # type: ignore[attr-defined]
    if isinstance(profiler, SimpleProfiler | AdvancedProfiler):
        print(profiler.summary())


def write_and_show(run: Training, results: dict[str, Any]) -> None:
    """Write the run's files, and print its table; a job of a sweep prints one line instead."""
    identity = results["identity"]
    title = f"{identity['method']} on {identity['data']}"
    panel_title = f"{title}, test split, seed {identity['seed']}"
    paths = write_outputs(
        run.folder,
        run.method,
        run.data,
        results,
        split="test",
        title=title,
        panel_title=panel_title,
        keep_masks=run.config.keep_masks,
    )
    if kept := kept_checkpoint(run.folder, run.config):
        paths["checkpoint"] = kept
    if job() is None:
        show(results, panel_title, paths)
    else:
        say_of_job(f"  {in_one_line(results)}: {run.folder}")
