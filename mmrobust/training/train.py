"""Train and evaluate the run whose configuration lies in a folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import AdvancedProfiler, SimpleProfiler
from omegaconf import DictConfig

from mmrobust.config.build import check_classes, construct
from mmrobust.config.identity import load_run_config
from mmrobust.data.base import DataModule
from mmrobust.errors import DivergenceError, UserError
from mmrobust.evaluation.description import describe
from mmrobust.evaluation.results import write_end, write_predictions, write_results
from mmrobust.loggers.metrics_file import MetricsFile
from mmrobust.reporting.panel import save_panel
from mmrobust.reporting.run_table import in_one_line, plot_combinations, show
from mmrobust.training.checkpoints import (
    Checkpoint,
    build_method,
    check_fits,
    checkpoint_path,
    load_checkpoint,
    load_weights,
)
from mmrobust.training.monitors import check_monitors, early_stops, unknown_score
from mmrobust.training.progress import Position
from mmrobust.training.pruning import Pruning
from mmrobust.training.retention import kept_checkpoint
from mmrobust.training.session import peak_memory, start_process
from mmrobust.training.terminal import job, say_of_job, step
from mmrobust.training.trainer import (
    build_trainer,
    compile_encoders,
    describe_devices,
    monitored,
    tell,
    whole_trainer,
)

log = logging.getLogger("mmrobust")


def train(folder: Path) -> dict[str, Any]:
    """Train, select a checkpoint, evaluate every combination on the test split, write the result.

    Args:
        folder: the run's, with its `config.yaml`. Receives `results.json`, `predictions.npz`,
            `combinations.png`, `panel.png`, `metrics.csv`, `checkpoints/`, `log.txt`.

    Returns:
        What `results.json` holds.
    """
    config = load_run_config(folder)
    check_classes(config)
    start_process(folder, config)
    data: DataModule = construct(config.data)
    data.validation_split = "test" if config.selection == "paper" else "val"
    where = config.data.get("root") or config.data.get("manifest")
    step(f"reading {config.choices.data}{f' in {where}' if where else ''} ...")
    data.setup()
    step(describe_data(data))
    method = build_method(config, data.spec)
    compile_encoders(method, config.trainer.compile)
    trainer = build_trainer(config, folder, method)
    count = sum(p.numel() for p in method.parameters())
    step(f"network: {count:,} parameters, on {describe_devices(trainer)}")
    last = checkpoint_path(folder, "last")
    before = load_checkpoint(last) if last.is_file() else None
    if before:
        check_fits(method, before, last)
    for logger in trainer.loggers:
        if isinstance(logger, MetricsFile):
            logger.keep(before["steps"] if before else 0)
    position = Position(before["seconds"] if before else 0.0, monitored(method))
    if before:
        data.position = before["position"]
    trainer.callbacks.insert(0, position)  # type: ignore[attr-defined]
    log.info(
        "run %s: %s on %s%s",
        folder,
        config.choices.method,
        config.choices.data,
        ", resumed" if before else "",
    )
    tell(config, method)
    watching: list[Callback] = [c for c in trainer.callbacks if not isinstance(c, Checkpoint)]  # type: ignore[attr-defined]
    check_monitors(watching, method, validates=data.validation_split in data.splits)
    try:
        trainer.fit(method, datamodule=data, ckpt_path=last if before else None, weights_only=True)
    except DivergenceError as error:  # perhaps on this rank alone
        write_end(folder, config, "diverged", trainer.current_epoch, str(error))
        raise
    except RuntimeError as error:
        if "conditioned on metric" not in str(error):
            raise
        raise unknown_score(watching, trainer) or error from error
    if not trainer.global_step:
        raise UserError(
            "training took not one step, so that there is nothing to evaluate: trainer.max_time, max_steps or "
            "limit_train_batches end it before"
        )
    seconds, epochs, device = position.seconds, trainer.current_epoch, describe_devices(trainer)
    if trainer.is_global_zero:
        for line in early_stops(watching, config.trainer.max_epochs):
            say_of_job(line)
    profiler = trainer.profiler  # type: ignore[attr-defined]
    seen = trainer.fit_loop.epoch_loop.batch_progress.total.completed * data.batch_size
    if any(isinstance(callback, Pruning) and callback.pruned for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return leave_pruned(folder, config, trainer)
    best = folder / "checkpoints" / "best.ckpt"
    chosen = best if config.selection != "last" and best.is_file() else last
    score = position.score(trainer)
    if config.trainer.strategy == "fsdp":  # each rank holds a piece of it
        method, trainer = build_method(config, data.spec), whole_trainer(config, trainer, folder)
    selected = load_weights(method, chosen).get("selection") if chosen.is_file() else None
    try:
        trainer.test(method, datamodule=data, verbose=False)
    except DivergenceError as error:
        write_end(folder, config, "diverged", trainer.current_epoch, str(error))
        raise
    results = describe(config, data, method.results) | {
        "selection": {**(selected or score), "checkpoint": chosen.stem},
        "cost": {
            "train_seconds": round(seconds, 3),
            "epochs": epochs,
            "device": device,
            "samples_per_second": round(seen / seconds, 2),
            "peak_memory_mib": peak_memory(),
            "parameters": count,
        },
    }
    if trainer.is_global_zero:
        if isinstance(profiler, SimpleProfiler | AdvancedProfiler):
            print(profiler.summary())
        if method.results.predictions is not None:
            write_predictions(folder, method.results.predictions)
        plot_combinations(
            results, folder / "combinations.png", f"{config.choices.method} on {config.choices.data}"
        )
        identity = results["identity"]
        title = f"{identity['method']} on {identity['data']}, test split, seed {identity['seed']}"
        save_panel(method, data, results, folder / "panel.png", title)
        write_results(folder, results)
        paths = {"result": folder / "results.json"}
        pictures = {"picture": folder / "combinations.png", "panel": folder / "panel.png"}
        paths |= {label: path for label, path in pictures.items() if path.is_file()}
        if kept := kept_checkpoint(folder, config):
            paths["checkpoint"] = kept
        if job() is None:
            show(results, title, paths)
        else:
            say_of_job(f"  {in_one_line(results)}: {folder}")
    for logger in trainer.loggers:
        if hasattr(logger, "log_results"):
            logger.log_results(results, folder, chosen)
        logger.finalize("success")
    return results


def describe_data(data: DataModule) -> str:
    """How much there is of it, in words."""
    sizes = ", ".join(f"{len(split)} {name}" for name, split in data.splits.items())
    return f"data: {sizes}; {', '.join(data.spec.modalities)}; {data.spec.num_classes} classes"


def leave_pruned(folder: Path, config: DictConfig, trainer: Trainer) -> dict[str, Any]:
    """A study ended this trial: it has no result, and is not begun again."""
    for logger in trainer.loggers:
        logger.finalize("success")
    if not trainer.is_global_zero:
        return {}
    say_of_job(f"  pruned after epoch {trainer.current_epoch}: {folder}")
    return write_end(folder, config, "pruned", trainer.current_epoch)
