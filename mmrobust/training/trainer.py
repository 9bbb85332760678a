"""Build Lightning's Trainer (devices, strategy, callbacks), compile encoders, and log related warnings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf
from torch import nn

from mmrobust.config.build import construct
from mmrobust.config.hidden import hide
from mmrobust.config.scaling import tell_optimization
from mmrobust.errors import UserError
from mmrobust.methods.base import Method
from mmrobust.tasks.metric import direction
from mmrobust.training.checkpoints import AtomicCheckpoints, Checkpoint
from mmrobust.training.devices import count_devices, place
from mmrobust.training.monitors import Shortness
from mmrobust.training.progress import Bar, EpochLines, Losses
from mmrobust.training.pruning import Pruning
from mmrobust.training.stopping import StopOnBadLoss, StopOnSignal
from mmrobust.training.terminal import shows_bar

log = logging.getLogger("mmrobust")

# Samples per device below which BatchNorm's estimates are poor.
FEW = 8


def trainer_arguments(config: DictConfig) -> dict[str, Any]:
    """The keys of `trainer` that are not null, with the number of devices and a strategy (DDP for several devices)."""
    keys: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    keys = {key: value for key, value in keys.items() if value is not None and key != "compile"}
    if not isinstance(keys["devices"], list):
        keys["devices"] = count_devices(config)
    several = keys["devices"] != 1 or keys["num_nodes"] > 1
    if keys["strategy"] in ("auto", "ddp", "fsdp"):
        # Buffers need no broadcast: methods keep them equal on all ranks (see mmrobust.ranks).
        keys["strategy"] = DDPStrategy(broadcast_buffers=False) if several else "auto"
    return keys | {"plugins": [*keys.get("plugins", []), environment()]}


def environment() -> ClusterEnvironment:
    """The plugin that tells Lightning its rank. Lightning's own guess may be wrong: in a batch script of Slurm it would
    take the number of allocated tasks for the world size."""
    return TorchElasticEnvironment() if place().world > 1 else LightningEnvironment()


def sharded_arguments(arguments: dict[str, Any], method: Method) -> dict[str, Any]:
    """The same arguments with a strategy and a precision that shard the network over the devices (FSDP)."""
    from mmrobust.training.sharding import Sharded, ShardedPrecision

    arguments = arguments | {"strategy": Sharded(method)}
    precision = ShardedPrecision(arguments.pop("precision"))
    return arguments | {"plugins": [*arguments["plugins"], precision]}


def whole_trainer(config: DictConfig, trainer: Trainer, folder: Path) -> Trainer:
    """A Trainer for the test after FSDP: the same devices and loggers, but a whole network on each device."""
    keys = trainer_arguments(config) | {"enable_progress_bar": False, "enable_checkpointing": False}
    return Trainer(**keys, logger=trainer.loggers, use_distributed_sampler=False, default_root_dir=folder)


def evaluation_trainer(config: DictConfig, folder: Path) -> Trainer:
    """A Trainer for an evaluation: one device, no loggers, no checkpoints."""
    return Trainer(
        accelerator=config.trainer.accelerator,
        devices=1,
        precision=config.trainer.precision,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=shows_bar(),
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


def compile_encoders(method: Method, mode: bool | str) -> None:
    """Compile each encoder as `trainer.compile` says. The keys of the state_dict do not change.

    The number of rows that have a modality changes from batch to batch, so torch compiles an encoder for the first
    number, and once more for any number.

    Raises:
        UserError: the machine has no C++ compiler.
    """
    if mode is False:
        return
    import torch._dynamo
    import torch._inductor.exc
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except torch._inductor.exc.InductorError as error:
        raise UserError(
            "trainer.compile needs a C++ compiler, and none was found; install g++, or set trainer.compile=false"
        ) from error
    # The limit counts all encoders of a class together, and each is compiled several times: in training and in
    # evaluation, for one row, for many rows, and for any number of rows.
    torch._dynamo.config.recompile_limit = 8 * len(method.encoders)
    for encoder in method.encoders.values():
        encoder.compile(mode="default" if mode is True else mode)


def tell(config: DictConfig, method: Method) -> None:
    """Log the effective batch size and learning rate, and warn if BatchNorm sees few samples per device."""
    world = count_devices(config) * config.trainer.num_nodes
    if place().rank:
        return
    for line in tell_optimization(config, world):
        log.info(line)
    each = config.data.batch_size // world
    norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in method.modules())
    if world > 1 and each < FEW and norms and not config.trainer.sync_batchnorm:
        log.warning(
            "BatchNorm sees %d samples on each of %d devices; trainer.sync_batchnorm=true lets it see all (on GPUs), "
            "encoder.norm=group does without, a larger data.batch_size helps, too",
            each,
            world,
        )


def describe_devices(trainer: Trainer) -> str:
    """Number and kind of a Trainer's devices, as text."""
    device = trainer.strategy.root_device
    world = f"{trainer.world_size} × " if trainer.world_size > 1 else ""
    if device.type == "cuda":
        return f"{world}{torch.cuda.get_device_name(device)}"
    return f"{world}{device.type} ({torch.get_num_threads()} threads)"


def monitored(method: Method) -> str:
    """The logged name of the score that selects the checkpoint."""
    return f"val/average/{method.task.primary}"


def first_selectable(config: DictConfig, method: Method) -> int:
    """The first epoch whose checkpoint may be selected; if the run is too short for the method, the last epoch."""
    epochs = config.trainer.max_epochs
    return min(method.selectable_from, epochs - 1) if epochs and epochs > 0 else method.selectable_from


def build_callbacks(config: DictConfig) -> list[Callback]:
    """Build the callbacks of the configuration; an entry that is null is switched off."""
    return [construct(node) for node in (config.get("callbacks") or {}).values() if node is not None]


def build_trainer(
    config: DictConfig, folder: Path, method: Method, further: Sequence[Callback] = ()
) -> Trainer:
    """Build the Trainer for training.

    Args:
        config: the run's configuration.
        folder: the run's folder.
        method: the method to be trained.
        further: callbacks that are called before ours and those of the configuration.

    Raises:
        UserError: the method or Lightning refuses these arguments.
    """
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
        logger.log_hyperparams(hide(config))
    monitor = monitored(method)
    every_epoch: dict[str, Any] = {
        "dirpath": folder / "checkpoints",
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    callbacks = [
        *further,
        # Two callbacks, because with save_last Lightning writes `last` only in epochs that are the best so far.
        Checkpoint(
            filename="best",
            monitor=monitor,
            mode=direction(method.task.primary),
            first=first_selectable(config, method),
            **every_epoch,
        ),
        Checkpoint(filename="last", first=0, **every_epoch),
        StopOnBadLoss(folder),
        Losses(),
        *([] if config.trainer.fast_dev_run else [Shortness()]),
        *build_callbacks(config),
    ]
    if config.study.pruner:
        callbacks.append(Pruning(config.study, monitor, config.trainer.max_epochs))
    if arguments["enable_progress_bar"]:
        callbacks.append(Bar(refresh_rate=10) if shows_bar() else EpochLines())
        arguments["enable_progress_bar"] = shows_bar()
    # The last one, because all others must have seen the batch before the checkpoint is saved.
    callbacks.append(StopOnSignal(folder))
    plugins = [*arguments.pop("plugins"), AtomicCheckpoints()]
    try:
        return Trainer(
            **arguments,
            logger=loggers,
            callbacks=callbacks,
            plugins=plugins,
            # KeyedSampler already splits the samples over ranks, and repeats none.
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
    # Only Lightning knows which arguments it accepts.
    except (ValueError, TypeError) as error:
        raise UserError(f"trainer: {error}; see conf/trainer/auto.yaml") from error
