"""Start the training of a prepared run folder: in this process, in one process per device, or on a launcher's ranks.

If a launcher (torchrun, srun) started several processes, rank 0 leads: it prepares folders and writes an order for each
training to the rendezvous store, and the other ranks follow the orders.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig

from mmrobust.errors import DivergenceError, Stopped, UserError
from mmrobust.evaluation.results import ended_early, read_results
from mmrobust.training.children import run_children
from mmrobust.training.claims import claimed
from mmrobust.training.devices import count_devices, place, usable_cores
from mmrobust.training.terminal import say_of_job

T = TypeVar("T")

# How long the other ranks wait for an order: rank 0 may train a teacher meanwhile.
PATIENCE = timedelta(days=365)
# Seconds within which a file that one node has written must appear on the others.
VISIBLE = 60


def on_leader(task: Callable[[], T]) -> T | None:
    """Run `task` on rank 0, which alone creates folders, teachers and configurations.

    The other ranks join each training that it starts, and return None when it is done.
    """
    here = place()
    if here.world == 1 or _leading:
        return task()
    _adopt()
    if here.rank:
        _follow(here.rank)
        return None
    _leading.append(True)
    try:
        return task()
    finally:
        _leading.clear()
        _send(None)
        # The store lives on rank 0, so it waits until the others have left. They may also have ended by an error.
        with contextlib.suppress(Exception):
            _store().wait([f"left/{rank}" for rank in range(1, here.world)], timedelta(seconds=10))


_leading: list[bool] = []
_orders = itertools.count()


def _adopt() -> None:
    """Copy Slurm's variables to torch's names, so that the code below and child processes know one form only."""
    if "RANK" in os.environ:
        return
    from lightning.fabric.plugins.environments import SLURMEnvironment

    get = os.environ.get
    os.environ |= {
        "RANK": os.environ["SLURM_PROCID"],
        "WORLD_SIZE": os.environ["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "GROUP_RANK": os.environ["SLURM_NODEID"],
    }
    nodes = get("SLURM_STEP_NODELIST") or get("SLURM_NODELIST") or "127.0.0.1"
    os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
    job, step = int(get("SLURM_JOB_ID") or 0), int(get("SLURM_STEP_ID") or 0)
    # Derived from the job, so that all ranks agree on the port without communicating.
    os.environ.setdefault("MASTER_PORT", str(15000 + (job + 101 * step) % 10000))


@cache
def _store() -> Any:
    """The rendezvous store, through which rank 0 sends orders to the other ranks."""
    import torch.distributed as distributed

    # The generator must live as long as the store; the process group of training finds the same server.
    store, _, _ = next(distributed.rendezvous("env://"))
    return distributed.PrefixStore("mmrobust", store)


def _send(order: Mapping[str, Any] | None) -> None:
    _store().set(f"order/{next(_orders)}", json.dumps(order))


def _follow(rank: int) -> None:
    """Join every training that rank 0 starts, until it sends the last order.

    Raises:
        UserError: the run's folder is not visible on this node.
    """
    try:
        for number in itertools.count():
            key = f"order/{number}"
            _store().wait([key], PATIENCE)
            order = json.loads(_store().get(key))
            if order is None:
                return
            folder, waited = Path(order["folder"]), time.monotonic() + VISIBLE
            while not (folder / "config.yaml").is_file():
                if time.monotonic() > waited:
                    raise UserError(
                        f"process {rank} on {socket.gethostname()} does not see {folder}, which process 0 has "
                        "prepared; paths.outputs must lie on a file system that all nodes share"
                    )
                time.sleep(1)
            _join(folder, order["port"])
    finally:
        with contextlib.suppress(Exception):
            _store().set(f"left/{rank}", "")


def _join(folder: Path, port: int | None) -> None:
    """Train together with the launcher's other processes; with a `port`, in child processes that meet there."""
    if port is None:
        from mmrobust.training.train import train

        train(folder)
        return
    environment = {k: v for k, v in os.environ.items() if k != "TORCHELASTIC_USE_AGENT_STORE"}
    command = [sys.executable, "-m", "mmrobust.training", str(folder)]
    run_children(command, folder, environment | {"MASTER_PORT": str(port)})


def start(folder: Path, config: DictConfig, *, apart: bool = False) -> None:
    """Train the run whose configuration lies in `folder`.

    Args:
        folder: the run's folder with its `config.yaml`.
        config: the composed configuration.
        apart: train in child processes even if this process could do it.

    Raises:
        DivergenceError: the loss is not finite on some rank.
        UserError: the machine has fewer devices than the configuration asks for, or the processes failed.
    """
    # A run that ended early has left one.
    (folder / "results.json").unlink(missing_ok=True)
    try:
        _start(folder, config, apart)
    except Stopped:
        raise
    # When one rank diverges, the others may fail with any error.
    except Exception as error:
        if ended_early(folder) != "diverged":
            raise
        raise DivergenceError(read_results(folder)["message"]) from error


def _start(folder: Path, config: DictConfig, apart: bool) -> None:
    if place().world > 1:
        _rehearse(config)
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1] if apart else None
        _send({"folder": str(folder.resolve()), "port": port})
        _join(folder, port)
        return
    with claimed(config) as gpus:
        count = count_devices(config)
        if count == 1 and not apart and not gpus:
            from mmrobust.training.train import train

            train(folder)
            return
        command = ["-m", "mmrobust.training", str(folder)]
        theirs = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
        # torchrun: all ranks read the saved configuration, share the folder, and stop together.
        if count > 1:
            _tell_of_cpus(config, count)
            _rehearse(config)
            command = ["-m", "mmrobust.training.launch", str(count), str(folder)]
            # torchrun would set the same value, but print a banner about it.
            theirs["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
        run_children([sys.executable, *command], folder, os.environ | theirs)


def _rehearse(config: DictConfig) -> None:
    from mmrobust.training.rehearsal import rehearse

    rehearse(config)


def _tell_of_cpus(config: DictConfig, count: int) -> None:
    if config.trainer.accelerator == "auto":
        import torch

        if not torch.cuda.is_available():
            say_of_job(f"this machine has no GPU: {count} processes share its {usable_cores()} CPU cores")
