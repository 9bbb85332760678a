"""What the jobs of a sweep need: nodes, tasks, GPUs and cores, as launchers ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, open_dict

from mmrobust.claims import Pool, number_of_devices, on_gpu, threads, usable_cores, visible_gpus
from mmrobust.errors import UserError

WEEK = 7 * 24 * 60  # minutes


def needs(config: DictConfig) -> dict[str, int]:
    """Nodes, tasks on each, GPUs of each and cores for each task."""
    devices = number_of_devices(config)
    if not devices:
        raise UserError(
            f"trainer.devices={config.trainer.devices} is no number, and on a cluster it must be said how many; "
            "e.g. trainer.devices=4"
        )
    return {
        "nodes": int(config.trainer.num_nodes),
        "tasks": devices,
        "gpus": devices if on_gpu(config) else 0,
        "cores": (threads(config) or 1) + int(config.data.get("workers") or 0),
    }


def groups(engine: str, configs: dict[int, DictConfig | None]) -> list[list[int]]:
    """The numbers of jobs that are started together: on a cluster, those of equal needs."""
    groups: dict[Any, list[int]] = {}
    for number, config in configs.items():
        same = tuple(needs(config).values()) if config and engine in ("submitit_slurm", "ray") else ()
        groups.setdefault(same, []).append(number)
    return list(groups.values())


def fitted(engine: str, master: DictConfig, config: DictConfig | None) -> DictConfig:
    """The sweep's configuration whose launcher asks for what a job needs, where the user has not said otherwise."""
    own = master.copy()
    node = own.hydra.launcher
    with open_dict(node):
        if engine == "submitit_slurm":
            more = node.additional_parameters
            more.setdefault("requeue" if own.launch.requeue else "no-requeue", True)
            if own.launch.requeue and not node.max_num_timeout:
                node.max_num_timeout = 1000
            if config:
                need = needs(config)
                node.nodes, node.tasks_per_node = need["nodes"], need["tasks"]
                node.cpus_per_task = node.cpus_per_task or need["cores"]
                if not (node.gres or node.gpus_per_task or node.gpus_per_node):
                    node.gpus_per_node = need["gpus"] or None
        elif engine == "ray" and config:
            need = needs(config)
            node.ray.remote.setdefault("num_gpus", need["gpus"] / own.launch.jobs_per_device)
            node.ray.remote.setdefault("num_cpus", need["tasks"] * need["cores"])
    return own


def prepare(engine: str, master: DictConfig, configs: Sequence[DictConfig]) -> Pool:
    """The devices that the jobs share out among themselves on this machine; sets how many run at once."""
    if engine not in ("joblib", "submitit_local"):
        return Pool()
    node, sharing = master.hydra.launcher, master.launch.jobs_per_device
    gpus = visible_gpus() if any(on_gpu(config) for config in configs) else ()
    if engine == "submitit_local":  # which starts all jobs at once
        node.timeout_min = max(node.timeout_min, WEEK)
        return Pool(gpus, tuple(f"core{i}" for i in range(usable_cores())), sharing)
    if node.n_jobs == -1:
        most = max(((threads(c) or 1) * max(number_of_devices(c), 1) for c in configs), default=1)
        node.n_jobs = max(len(gpus) * sharing if gpus else usable_cores() // most, 1)
    return Pool(gpus, (), sharing)
