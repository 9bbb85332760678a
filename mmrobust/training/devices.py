"""The devices and threads of a run, and the rank of this process. Imports no torch unless GPUs must be counted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from mmrobust.config.keys import encoder_entries
from mmrobust.errors import UserError


@dataclass(frozen=True)
class Place:
    """This process's rank and world size, and what launched it.

    Args:
        rank: from 0; rank 0 leads.
        world: the number of processes; 1 without a launcher.
        per_node: the number of processes on each node; None if it is unknown.
        launcher: the name of the launcher, for messages.
    """

    rank: int
    world: int
    per_node: int | None
    launcher: str


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """Read the place from the variables of torchrun, of another launcher that sets torch's, or of Slurm's srun."""
    get = environment.get
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= environment.keys():
        per_node = get("LOCAL_WORLD_SIZE")
        launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in environment else "the launcher (RANK, WORLD_SIZE)"
        return Place(
            int(environment["RANK"]),
            int(environment["WORLD_SIZE"]),
            int(per_node) if per_node else None,
            launcher,
        )
    # Not SLURM_NTASKS: in a batch script, which is one process, it counts the allocated tasks.
    tasks = int(get("SLURM_STEP_NUM_TASKS") or 1)
    if tasks > 1:
        nodes = int(get("SLURM_STEP_NUM_NODES") or get("SLURM_NNODES") or 1)
        return Place(int(environment["SLURM_PROCID"]), tasks, tasks // nodes, "srun")
    return Place(0, 1, None, "nobody")


def in_slurm() -> bool:
    """Whether this process belongs to a job of Slurm, however it was started."""
    return "SLURM_JOB_ID" in os.environ


def count_devices(config: DictConfig) -> int:
    """The number of devices of this machine that a run uses, which is its number of processes here.

    Raises:
        UserError: the machine has fewer GPUs than the run asks for.
    """
    devices, accelerator, wanted = (
        config.trainer.devices,
        config.trainer.accelerator,
        number_of_devices(config),
    )
    if devices == 1:
        return 1
    if accelerator == "cpu":
        return max(wanted, 1)
    import torch

    there = torch.cuda.device_count()
    if not there and accelerator == "auto":
        return max(wanted, 1)
    if wanted > there or not there:
        raise UserError(
            f"trainer.devices={devices}, but this machine has {there} GPUs; ask for at most that many, or set "
            "trainer.accelerator=cpu"
        )
    return wanted or there


def visible_gpus() -> tuple[str, ...]:
    """The visible GPUs by their names in CUDA_VISIBLE_DEVICES. Without that variable, torch counts them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        # CUDA ignores all names from the first invalid one on.
        end = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
        return tuple(names[:end])
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))


def usable_cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_gpu(config: DictConfig) -> bool:
    """Whether a run uses a GPU if the machine has one."""
    return str(config.trainer.accelerator) in ("auto", "gpu", "cuda")


def number_of_devices(config: DictConfig) -> int:
    """The number of devices per machine that the configuration names; 0 stands for all."""
    devices = config.trainer.devices
    if OmegaConf.is_list(devices):
        return len(devices)
    return 0 if devices == "auto" else max(int(devices), 0)


def threads(config: DictConfig) -> int | None:
    """The number of CPU threads of a run: `threads`, or one if all encoders are tiny, which more threads slow down.
    None: torch's choice."""
    names = [entry.get("name", "tiny") for entry in encoder_entries(config.encoder).values()]
    tiny = all(name == "tiny" for name in (config.encoder.name, *names))
    return config.threads or (1 if tiny else None)


def check_devices(config: DictConfig) -> None:
    """Check that devices, nodes, processes, batch size and strategy are consistent.

    Raises:
        UserError: they are not; the message says what to set.
    """
    devices, nodes, here = count_devices(config), config.trainer.num_nodes, place()
    world = devices * nodes
    if config.trainer.accelerator in ("gpu", "cuda") and not _has_gpu(config):
        raise UserError(
            f"trainer.accelerator={config.trainer.accelerator}, but this machine has no GPU; set trainer.accelerator=cpu"
        )
    if here.world > 1 and here.world != world:
        each = here.per_node or here.world
        raise UserError(
            f"{here.launcher} started {here.world} processes, but trainer.devices={devices} on "
            f"trainer.num_nodes={nodes} are {world}; set trainer.devices={each} "
            f"trainer.num_nodes={here.world // each}, or start {world}"
        )
    if here.world == 1 and nodes > 1:
        raise UserError(
            f"trainer.num_nodes={nodes}, but only this process was started; start the same command on every node: "
            f"torchrun --nnodes={nodes} --nproc-per-node={devices} --rdzv-backend=c10d --rdzv-endpoint=<first "
            "node>:29500 -m mmrobust.run ..., or all of them with srun"
        )
    if config.data.batch_size % world:
        raise UserError(
            f"data.batch_size={config.data.batch_size} counts the samples of all {world} devices and does not divide "
            f"by {world}; try {-(-config.data.batch_size // world) * world}"
        )
    if config.trainer.sync_batchnorm and world > 1 and not _has_gpu(config):
        raise UserError(
            "trainer.sync_batchnorm=true needs GPUs: torch has no such layer for CPUs; leave it out, or take layers "
            "that do not look at the batch: encoder.norm=group"
        )
    if config.trainer.strategy == "fsdp":
        if world == 1:
            raise UserError(
                "trainer.strategy=fsdp shares a network out over devices, and there is one; set trainer.devices to "
                "several, or take another trainer"
            )
        from mmrobust.config.build import class_of
        from mmrobust.training.sharding import check_shardable

        check_shardable(config.choices.method, class_of(config.method._target_, "method._target_"))


def _has_gpu(config: DictConfig) -> bool:
    if config.trainer.accelerator == "cpu":
        return False
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()
