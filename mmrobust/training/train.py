"""Train and evaluate the run whose configuration lies in a folder."""

from __future__ import annotations

import logging
import resource
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from mmrobust.config.compose import construct, load_run_config
from mmrobust.data.base import DataModule
from mmrobust.errors import DivergenceError, UserError
from mmrobust.evaluation.description import describe
from mmrobust.evaluation.results import (
    direction,
    plot_combinations,
    result_table,
    write_end,
    write_predictions,
    write_results,
)
from mmrobust.loggers.wandb_logger import MetricsFile
from mmrobust.methods.base import Method
from mmrobust.reporting.panel import save_panel
from mmrobust.training.checkpoints import (
    AtomicCheckpoints,
    build_method,
    check_fits,
    checkpoint_path,
    load_checkpoint,
    load_weights,
)
from mmrobust.training.devices import threads
from mmrobust.training.pruning import Pruning
from mmrobust.training.retention import kept_checkpoint
from mmrobust.training.stopping import Checkpoint, EpochLines, Losses, Position, StopOnBadLoss, StopOnSignal
from mmrobust.training.trainer import (
    compile_encoders,
    sharded_arguments,
    tell,
    trainer_arguments,
    whole_trainer,
)

log = logging.getLogger("mmrobust")

THREADS = torch.get_num_threads()  # torch's own choice, before a run changes it


def train(folder: Path) -> dict[str, Any]:
    """Train, select a checkpoint, evaluate every combination on the test split, write the result.

    Args:
        folder: the run's, with its `config.yaml`. Receives `results.json`, `predictions.npz`,
            `combinations.png`, `panel.png`, `metrics.csv`, `checkpoints/`, `log.txt`.

    Returns:
        What `results.json` holds.
    """
    config = load_run_config(folder)
    start_process(folder, config)
    data: DataModule = construct(config.data)
    data.validation_split = "test" if config.selection == "paper" else "val"
    data.setup()
    method = build_method(config, data.spec)
    compile_encoders(method, config.trainer.get("compile", False))
    trainer = build_trainer(config, folder, method)
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
    try:
        trainer.fit(method, datamodule=data, ckpt_path=last if before else None, weights_only=True)
    except DivergenceError as error:  # perhaps on this rank alone
        write_end(folder, config, "diverged", trainer.current_epoch, str(error))
        raise
    seconds = position.seconds
    seen = trainer.fit_loop.epoch_loop.batch_progress.total.completed * data.batch_size
    if any(isinstance(callback, Pruning) and callback.pruned for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return leave_pruned(folder, config, trainer)
    best = folder / "checkpoints" / "best.ckpt"
    chosen = best if config.selection != "last" and best.is_file() else last
    score = position.score(trainer)
    if config.trainer.strategy == "fsdp":  # each rank holds a piece of it
        method, trainer = build_method(config, data.spec), whole_trainer(config, trainer, folder)
    selected = load_weights(method, chosen).get("selection") if chosen.is_file() else None
    trainer.test(method, datamodule=data, verbose=False)
    results = describe(config, data, method.results) | {
        "selection": {**(selected or score), "checkpoint": chosen.stem},
        "cost": {
            "train_seconds": round(seconds, 3),
            "samples_per_second": round(seen / seconds, 2),
            "peak_memory_mib": peak_memory(),
            "parameters": sum(p.numel() for p in method.parameters()),
        },
    }
    if trainer.is_global_zero:
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
        show(results, title, paths)
    for logger in trainer.loggers:
        if hasattr(logger, "log_results"):
            logger.log_results(results, folder, chosen)
        logger.finalize("success")
    return results


def leave_pruned(folder: Path, config: DictConfig, trainer: Trainer) -> dict[str, Any]:
    """A study ended this trial: it has no result, and is not begun again."""
    for logger in trainer.loggers:
        logger.finalize("success")
    if not trainer.is_global_zero:
        return {}
    print(f"pruned after epoch {trainer.current_epoch}: {folder}", flush=True)
    return write_end(folder, config, "pruned", trainer.current_epoch)


def monitored(method: Method) -> str:
    """The score that selects the checkpoint, as it is logged."""
    return f"val/average/{method.task.primary}"


def build_trainer(config: DictConfig, folder: Path, method: Method) -> Trainer:
    """Lightning's Trainer with the arguments of `trainer` that are not null."""
    arguments = trainer_arguments(config)
    if config.trainer.strategy == "fsdp":
        arguments = sharded_arguments(arguments, method)
    if not method.automatic_optimization:
        if arguments.get("accumulate_grad_batches", 1) > 1:
            raise UserError(
                f"trainer.accumulate_grad_batches={config.trainer.accumulate_grad_batches}, but "
                f"method={config.choices.method} takes several optimizer steps a batch; set it to 1"
            )
        method.clipping = (
            arguments.pop("gradient_clip_val", None),
            arguments.pop("gradient_clip_algorithm", None),
        )
    loggers: list[Logger] = [construct(logger) for logger in config.logger.values()]
    for logger in loggers:
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    monitor = monitored(method)
    every_epoch: dict[str, Any] = {
        "dirpath": folder / "checkpoints",
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    callbacks = [
        # Two: with save_last, Lightning writes `last` only in epochs that are also the best so far.
        Checkpoint(filename="best", monitor=monitor, mode=direction(method.task.primary), **every_epoch),
        Checkpoint(filename="last", **every_epoch),
        StopOnBadLoss(folder),
        Losses(),
        *(construct(callback) for callback in config.callbacks.values()),
    ]
    if config.get("study") and config.study.pruner:
        callbacks.append(Pruning(config.study, monitor, config.trainer.max_epochs))
    if arguments["enable_progress_bar"]:
        callbacks.append(TQDMProgressBar(refresh_rate=10) if sys.stderr.isatty() else EpochLines())
        arguments["enable_progress_bar"] = sys.stderr.isatty()
    callbacks.append(StopOnSignal(folder))  # behind all that must have seen the batch it saves
    plugins = [*arguments.pop("plugins"), AtomicCheckpoints()]
    try:
        return Trainer(
            **arguments,
            logger=loggers,
            callbacks=callbacks,
            plugins=plugins,
            use_distributed_sampler=False,  # ours repeats no sample
            default_root_dir=folder,
        )
    except (ValueError, TypeError) as error:  # what Lightning takes, only Lightning knows
        raise UserError(f"trainer: {error}; see conf/trainer/auto.yaml") from error


def start_process(folder: Path, config: DictConfig) -> None:
    """What a process needs before it computes: its log file and number of threads."""
    _start_log(folder)
    torch.set_num_threads(threads(config) or THREADS)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> float:
    """MiB: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1)


def _start_log(folder: Path) -> None:
    """`log.txt` gets everything; the terminal stays with the progress bar and the result."""
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    handler = logging.FileHandler(folder / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("mmrobust", "lightning.pytorch", "lightning.fabric", "py.warnings"):
        logger = logging.getLogger(name)
        for old in list(logger.handlers):
            logger.removeHandler(old)
            old.close()
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = name == "mmrobust"


def show(results: dict[str, Any], title: str, paths: dict[str, Path]) -> None:
    """Print the table, and where things are."""
    from rich.console import Console

    Console().print(result_table(results, title))
    for label, path in paths.items():
        print(f"{label:<11}{path}")
