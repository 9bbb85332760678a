"""Open a run: build its data, method and Trainer from its configuration and its folder.

Training calls `begin`, `open_data` and `open_training`. An evaluation calls `trained_method` instead of
`open_training`. `open_trained` opens a run without its data.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from mmrobust.config.build import check_classes, construct
from mmrobust.config.confined import confined
from mmrobust.config.identity import load_run_config
from mmrobust.data.base import DataModule
from mmrobust.data.spec import DataSpec
from mmrobust.evaluation.added_metrics import build_metrics
from mmrobust.loggers.metrics_file import MetricsFile
from mmrobust.methods.base import Method
from mmrobust.models.initialization import initialize
from mmrobust.models.pretraining import without_pretrained_weights
from mmrobust.training.checkpoints import (
    check_fits,
    checkpoint_path,
    load_checkpoint,
    read_spec,
)
from mmrobust.training.devices import threads
from mmrobust.training.log_file import start_log
from mmrobust.training.progress import Position
from mmrobust.training.run_file import read_run_file
from mmrobust.training.trainer import build_trainer, compile_encoders, monitored

# torch's own choice, read before a run changes it
THREADS = torch.get_num_threads()


@dataclass(frozen=True)
class Training:
    """A run that is open for training.

    Args:
        config: its configuration.
        folder: the folder that it writes to.
        data: the data, set up.
        method: the method with new weights; `trainer.fit` restores those of a resumed run.
        trainer: the Trainer with loggers and callbacks.
        position: the callback that counts the seconds of training.
        resumed: the checkpoint from which training resumes; None for a new run.
    """

    config: DictConfig
    folder: Path
    data: DataModule
    method: Method
    trainer: Trainer
    position: Position
    resumed: Path | None


@dataclass(frozen=True)
class Trained:
    """A run that is open for inference.

    Args:
        config: its configuration.
        spec: the description of the data that it was trained with.
        method: the method with the weights of a checkpoint, in eval mode.
    """

    config: DictConfig
    spec: DataSpec
    method: Method


def begin(folder: Path, config: DictConfig) -> None:
    """Prepare the process before anything is built: check every class, open the log file, set the number of threads.

    Raises:
        UserError: a class does not have the role, or lie in a package, that its key asks for.
    """
    check_classes(config)
    start_log(folder)
    torch.set_num_threads(threads(config) or THREADS)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> float:
    """Peak memory in MiB: of the GPU since `begin` if there is one, else of this process."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1)


def open_data(config: DictConfig, trained_on: DataSpec | None = None) -> DataModule:
    """Build and set up the data of a configuration. With selection=paper the test split is also the validation split.

    Args:
        config: the run's configuration.
        trained_on: the description of the training data, if the run is tested on other data.

    Raises:
        UserError: files of the data are missing or damaged.
    """
    data: DataModule = construct(config.data)
    data.trained_on = trained_on
    data.validation_split = "test" if config.selection == "paper" else "val"
    data.setup()
    return data


def build_method(config: DictConfig, spec: DataSpec) -> Method:
    """Build the method of a run's configuration, with new weights drawn from its seed by the rule `init`."""
    torch.manual_seed(config.seed)
    method = construct(config.method, spec=spec)
    assert isinstance(method, Method)
    initialize(method, config.init)
    method.evaluates = None if config.combinations == "all" else int(config.combinations)
    method.metrics = build_metrics(config.get("metrics") or DictConfig({}), spec)
    return method


def trained_method(config: DictConfig, spec: DataSpec, checkpoint: Path) -> Method:
    """Build the method of a run's configuration with the weights of a checkpoint.

    The files of the pretrained weights that training began with are not needed.

    Raises:
        UserError: as `load_weights`.
    """
    return with_weights(config, spec, load_checkpoint(checkpoint), checkpoint)


def with_weights(config: DictConfig, spec: DataSpec, checkpoint: dict[str, Any], path: Path) -> Method:
    """As `trained_method`, with a checkpoint that was read from `path` already."""
    with without_pretrained_weights():
        method = build_method(config, spec)
    check_fits(method, checkpoint, path)
    method.load_state_dict(checkpoint["state_dict"])
    return method


def open_training(
    config: DictConfig, folder: Path, data: DataModule, callbacks: Sequence[Callback] = ()
) -> Training:
    """Open a run for training: a new one, or one that resumes from `checkpoints/last.ckpt` of its folder.

    Args:
        config: its configuration.
        folder: its folder.
        data: the result of `open_data`; its position becomes that of the checkpoint.
        callbacks: further callbacks, called before those of the configuration.

    Raises:
        UserError: the checkpoint is damaged or belongs to another run, or Lightning refuses the keys of `trainer`.
    """
    method = build_method(config, data.spec)
    compile_encoders(method, config.trainer.compile)
    last, steps, seconds = checkpoint_path(folder, "last"), 0, 0.0
    resumed = last if last.is_file() else None
    if resumed:
        checkpoint = load_checkpoint(resumed)
        check_fits(method, checkpoint, resumed)
        steps, seconds, data.position = checkpoint["steps"], checkpoint["seconds"], checkpoint["position"]
    position = Position(seconds, monitored(method))
    trainer = build_trainer(config, folder, method, [position, *callbacks])
    for logger in trainer.loggers:
        if isinstance(logger, MetricsFile):
            logger.keep(steps)
    return Training(config, folder, data, method, trainer, position, resumed)


def open_trained(run: Path | str, which: str = "best") -> Trained:
    """Open a trained run for inference. The data are not needed: the checkpoint holds their description.

    Classes of the user's own packages are built only within `config.trust.trusting(["my_package"])`.

    Args:
        run: the run's folder, or a file that `run_file` wrote.
        which: the checkpoint, `best` or `last`; a file holds one only.

    Raises:
        UserError: a class does not have the role, or lie in a package, that its key asks for; the checkpoint cannot be
            loaded (see `load_checkpoint`).
    """
    path = Path(run)
    if path.is_file():
        config, checkpoint = read_run_file(path)
        config = confined(config, path, trains=False)
    else:
        config = confined(load_run_config(run), path, trains=False)
        path = checkpoint_path(run, which)
        checkpoint = load_checkpoint(path)
    check_classes(config)
    spec = read_spec(checkpoint, path)
    return Trained(config, spec, with_weights(config, spec, checkpoint, path).eval())
