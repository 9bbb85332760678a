"""Who may use what: run folders, and the devices of this machine. Locks of the operating system, released when
the processes that hold them are gone. Imports no torch."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

PARTS = 16  # of a device: a job that shares it with n - 1 others takes PARTS // n
UNLOCKABLE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems that know no locks

HELD: set[int] = (
    set()
)  # open files with locks; a child process that is given them keeps the locks while it lives


def _take(path: Path, *, wait: bool) -> int | None:
    """The lock's open file; none if another holds it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(file)
        return None
    except OSError as error:
        if error.errno not in UNLOCKABLE:
            os.close(file)
            raise
        print(f"{path} cannot be locked ({error.strerror}); start no run twice", file=sys.stderr, flush=True)
    except BaseException:  # a signal while waiting
        os.close(file)
        raise
    HELD.add(file)
    return file


def _release(file: int) -> None:
    HELD.discard(file)
    os.close(file)


@contextmanager
def locked(path: Path, told: str = "") -> Iterator[None]:
    """Hold a lock.

    Args:
        path: its file, which stays.
        told: printed if another process holds it and this one waits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _take(path, wait=False)
    if file is None:
        if told:
            print(told, flush=True)
        file = _take(path, wait=True)
    assert file is not None
    try:
        yield
    finally:
        _release(file)


@contextmanager
def claim(ids: Sequence[str], count: int, sharing: int, folder: Path) -> Iterator[list[str]]:
    """Hold some of the devices, which are waited for in the order of asking.

    Args:
        ids: of all devices.
        count: how many, at most all.
        sharing: how many jobs may use one device; a job that shares with none is alone whatever others allow.
        folder: of the locks, the same for all who use these devices.
    """
    name = hashlib.sha256(" ".join(ids).encode()).hexdigest()[:12]
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
    """Locks of the first devices with that many parts left."""
    found: dict[str, list[int]] = {}
    for name in ids:
        files: list[int] = []
        for part in range(PARTS):
            file = _take(folder / f"device-{name.replace('/', '_')}.{part}.lock", wait=False)
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
        _release(file)


@dataclass(frozen=True)
class Pool:
    """The devices of this machine that the jobs of sweeps share out among themselves.

    Args:
        gpus: as CUDA_VISIBLE_DEVICES names them.
        cores: the CPU's, where the launcher does not limit how many jobs run at once.
        sharing: how many jobs may use one GPU.
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
    """Hold what a run takes of the launcher's pool.

    Yields:
        Its GPUs; none if there is no pool, or the run computes on the CPU.
    """
    pool = POOL.get()
    if pool.gpus and on_gpu(config):
        devices = config.trainer.devices
        if OmegaConf.is_list(devices):  # these, not any; counted among all that can be seen
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


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that may be used, as CUDA_VISIBLE_DEVICES names them. Imports torch if that is not set."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        end = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))  # as CUDA reads it
        return tuple(names[:end])
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))


def usable_cores() -> int:
    """Those of the CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_gpu(config: DictConfig) -> bool:
    """Whether a run uses a GPU where there is one."""
    return str(config.trainer.accelerator) in ("auto", "gpu", "cuda")


def number_of_devices(config: DictConfig) -> int:
    """How many devices of each machine a run names; 0 if all."""
    devices = config.trainer.devices
    if OmegaConf.is_list(devices):
        return len(devices)
    return 0 if devices == "auto" else max(int(devices), 0)


def threads(config: DictConfig) -> int | None:
    """How many threads a run takes of the CPU: more only slow down tiny encoders. None: torch's choice."""
    entries = (e for e in config.encoder.values() if OmegaConf.is_dict(e) and "name" in e)
    tiny = all(encoder.name == "tiny" for encoder in (config.encoder, *entries))
    return config.threads or (1 if tiny else None)
