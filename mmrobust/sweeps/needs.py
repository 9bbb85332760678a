"""What the jobs of a sweep need: nodes, tasks, GPUs and cores, as launchers ask for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig, open_dict

from mmrobust.errors import UserError
from mmrobust.training.claims import Pool
from mmrobust.training.devices import number_of_devices, on_gpu, threads, usable_cores, visible_gpus

CLUSTERS = ("submitit_slurm", "ray")  # which ask for what a job needs
WEEK = 7 * 24 * 60  # minutes


@dataclass(frozen=True)
class Need:
    """What a job needs: nodes, tasks on each (0: as many as there are devices), GPUs of each, cores for each task."""

    nodes: int
    tasks: int
    gpus: int
    cores: int
    gpu: bool = False
    threads: int = 1


def needs(config: DictConfig) -> Need:
    """What a job's configuration says that it needs."""
    devices, gpu, each = number_of_devices(config), on_gpu(config), threads(config) or 1
    cores = each + int(config.data.get("workers") or 0)
    return Need(int(config.trainer.num_nodes), devices, devices if gpu else 0, cores, gpu, each)


def groups(engine: str, jobs: Mapping[int, Need | None]) -> list[list[int]]:
    """The numbers of jobs that are started together: on a cluster, those of equal needs.

    Raises:
        UserError: a job for a cluster does not say how many devices it needs.
    """
    found: dict[Need | None, list[int]] = {}
    for number, need in jobs.items():
        if engine in CLUSTERS and need and not need.tasks:
            raise UserError(
                "trainer.devices: all of a machine are no number, and on a cluster it must be said how many; "
                "e.g. trainer.devices=4"
            )
        found.setdefault(need if engine in CLUSTERS else None, []).append(number)
    return list(found.values())


def fitted(engine: str, master: DictConfig, need: Need | None) -> DictConfig:
    """The sweep's configuration whose launcher asks for what a job needs, where the user has not said otherwise."""
    own = master.copy()
    node = own.hydra.launcher
    with open_dict(node):
        if engine == "submitit_slurm":
            node.additional_parameters.setdefault("requeue" if own.launch.requeue else "no-requeue", True)
            if own.launch.requeue and not node.max_num_timeout:
                node.max_num_timeout = 1000
            if need:
                node.nodes, node.tasks_per_node = need.nodes, need.tasks
                node.cpus_per_task = node.cpus_per_task or need.cores
                if not (node.gres or node.gpus_per_task or node.gpus_per_node):
                    node.gpus_per_node = need.gpus or None
        elif engine == "ray" and need:
            node.ray.remote.setdefault("num_gpus", need.gpus / own.launch.jobs_per_device)
            node.ray.remote.setdefault("num_cpus", need.tasks * need.cores)
    return own


def prepare(engine: str, master: DictConfig, jobs: Sequence[Need]) -> Pool:
    """The devices that the jobs share out among themselves on this machine; sets how many run at once."""
    if engine not in ("joblib", "submitit_local"):
        return Pool()
    node, sharing = master.hydra.launcher, master.launch.jobs_per_device
    gpus = visible_gpus() if any(need.gpu for need in jobs) else ()
    if engine == "submitit_local":  # which starts all jobs at once
        node.timeout_min = max(node.timeout_min, WEEK)
        return Pool(gpus, tuple(f"core{i}" for i in range(usable_cores())), sharing)
    if node.n_jobs == -1:
        most = max((need.threads * max(need.tasks, 1) for need in jobs), default=1)
        node.n_jobs = max(len(gpus) * sharing if gpus else usable_cores() // most, 1)
    return Pool(gpus, (), sharing)
