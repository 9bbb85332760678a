"""Start the training of a prepared run folder: here, as a process for each device, or among those of a launcher."""

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

PATIENCE = timedelta(days=365)  # of those who wait while the first trains a teacher
VISIBLE = 60  # seconds until a shared file system shows to all nodes what one has written


def led(task: Callable[[], T]) -> T | None:
    """Do it in the first of a launcher's processes, which alone prepares folders, teachers and configurations; the
    others take part in the trainings that it starts, and return None when it is done."""
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
        _tell(None)
        with contextlib.suppress(Exception):  # they may have ended in other ways
            _store().wait([f"left/{rank}" for rank in range(1, here.world)], timedelta(seconds=10))


_leading: list[bool] = []
_told = itertools.count()


def _adopt() -> None:
    """Slurm's variables under torch's names, so that there is one way from here on, and for child processes."""
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
    os.environ.setdefault(
        "MASTER_PORT", str(15000 + (job + 101 * step) % 10000)
    )  # the same for all, without asking


@cache
def _store() -> Any:
    """What the processes can write to each other with."""
    import torch.distributed as distributed

    # The generator must live as long as the store; the process group of training finds the same server.
    store, _, _ = next(distributed.rendezvous("env://"))
    return distributed.PrefixStore("mmrobust", store)


def _tell(order: Mapping[str, Any] | None) -> None:
    _store().set(f"order/{next(_told)}", json.dumps(order))


def _follow(rank: int) -> None:
    """Take part in every training that the first process starts.

    Raises:
        UserError: its folder cannot be seen here.
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
    """Train together with the launcher's other processes; in child processes, which meet at `port`, if given."""
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
        folder: with its `config.yaml`.
        config: the same, composed.
        apart: in processes of its own even where one would do.

    Raises:
        DivergenceError: the loss is no number, on whatever rank.
        UserError: more devices than there are; the processes failed.
    """
    (folder / "results.json").unlink(missing_ok=True)  # of a run that ended early
    try:
        _start(folder, config, apart)
    except Stopped:
        raise
    except Exception as error:  # whatever the end of one rank does to the others
        if ended_early(folder) != "diverged":
            raise
        raise DivergenceError(read_results(folder)["message"]) from error


def _start(folder: Path, config: DictConfig, apart: bool) -> None:
    if place().world > 1:
        _rehearse(config)
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1] if apart else None
        _tell({"folder": str(folder.resolve()), "port": port})
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
        if count > 1:  # torchrun: all ranks read the saved configuration, share the folder, and stop together
            _tell_of_cpus(config, count)
            _rehearse(config)
            command = ["-m", "mmrobust.training.launch", str(count), str(folder)]
            theirs["OMP_NUM_THREADS"] = os.environ.get(
                "OMP_NUM_THREADS", "1"
            )  # what torchrun would set, with a banner
        run_children([sys.executable, *command], folder, os.environ | theirs)


def _rehearse(config: DictConfig) -> None:
    from mmrobust.training.rehearsal import rehearse

    rehearse(config)


def _tell_of_cpus(config: DictConfig, count: int) -> None:
    if config.trainer.accelerator == "auto":
        import torch

        if not torch.cuda.is_available():
            say_of_job(f"this machine has no GPU: {count} processes share its {usable_cores()} CPU cores")
