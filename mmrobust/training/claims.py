"""Share the devices of this machine among the jobs of sweeps: each job holds locks on those that it uses.

Imports no torch.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mmrobust.files import short_hash
from mmrobust.training.devices import number_of_devices, on_gpu, threads
from mmrobust.training.locks import locked, release, take

# Locks per device: a job that may share a device with n - 1 others takes PARTS // n of them.
PARTS = 16


@contextmanager
def claim(ids: Sequence[str], count: int, sharing: int, folder: Path) -> Iterator[list[str]]:
    """Hold `count` of the devices; waiting jobs get them in the order of their requests.

    Args:
        ids: the ids of all devices.
        count: the number of devices to hold, at most all.
        sharing: how many jobs may use one device. A job with 1 has its devices alone, whatever other jobs allow.
        folder: the folder of the locks, which all users of these devices must name alike.

    Yields:
        The ids of the devices that are held.
    """
    name = short_hash(" ".join(ids), 12)
    with ExitStack() as held:
        with locked(folder / f"queue-{name}.lock"):
            while len(found := _free(ids, count, max(PARTS // sharing, 1), folder)) < count:
                for files in found.values():
                    _release_all(files)
                time.sleep(0.2)
        for files in found.values():
            held.callback(_release_all, files)
        yield list(found)


def _free(ids: Sequence[str], count: int, parts: int, folder: Path) -> dict[str, list[int]]:
    """Take the locks of up to `count` devices that have `parts` free locks each: id -> open lock files."""
    found: dict[str, list[int]] = {}
    for name in ids:
        files: list[int] = []
        for part in range(PARTS):
            file = take(folder / f"device-{name.replace('/', '_')}.{part}.lock", wait=False)
            if file is not None:
                files.append(file)
            if len(files) == parts:
                break
        if len(files) == parts:
            found[name] = files
        else:
            _release_all(files)
        if len(found) == count:
            break
    return found


def _release_all(files: Sequence[int]) -> None:
    for file in files:
        release(file)


@dataclass(frozen=True)
class Pool:
    """The devices of this machine that the jobs of sweeps share.

    Args:
        gpus: the GPUs by their names in CUDA_VISIBLE_DEVICES.
        cores: the CPU cores, if the launcher does not limit the number of parallel jobs; else empty.
        sharing: how many jobs may use one GPU.
        folder: the folder of the locks, one for all sweeps of a user.
    """

    gpus: tuple[str, ...] = ()
    cores: tuple[str, ...] = ()
    sharing: int = 1
    folder: Path = field(
        default_factory=lambda: Path(tempfile.gettempdir(), f"mmrobust-{os.getuid()}", "devices")
    )


POOL: ContextVar[Pool] = ContextVar("POOL", default=Pool())  # noqa: B039 (it is frozen)


@contextmanager
def claimed(config: DictConfig) -> Iterator[list[str]]:
    """Hold the devices of the launcher's pool that a run uses.

    Yields:
        The run's GPUs; none if the pool has none, or the run computes on the CPU.
    """
    pool = POOL.get()
    if pool.gpus and on_gpu(config):
        devices = config.trainer.devices
        # A list names particular GPUs by their position among the visible ones.
        if OmegaConf.is_list(devices):
            ids = [pool.gpus[i] for i in devices]
            with claim(ids, len(ids), pool.sharing, pool.folder):
                yield list(pool.gpus)
            return
        count = number_of_devices(config) or len(pool.gpus)
        with claim(pool.gpus, count, pool.sharing, pool.folder) as gpus:
            yield gpus
    elif pool.cores:
        count = min((threads(config) or len(pool.cores)) * max(number_of_devices(config), 1), len(pool.cores))
        with claim(pool.cores, count, 1, pool.folder):
            yield []
    else:
        yield []
