"""Start the training of a prepared run folder: here, or as a group of processes, one for each device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from omegaconf import DictConfig, OmegaConf

from mmrobust.errors import Stopped, UserError


def start(folder: Path, config: DictConfig, *, apart: bool = False) -> None:
    """Train the run whose configuration lies in `folder`.

    Args:
        folder: with its `config.yaml`.
        config: the same, composed.
        apart: in a process of its own even on one device.

    Raises:
        UserError: more devices than there are; the processes failed.
    """
    count = count_devices(config)
    if (count == 1 and not apart) or "LOCAL_RANK" in os.environ:
        from mmrobust.training import train

        train(folder)
        return
    if config.data.batch_size % count:
        raise UserError(
            f"data.batch_size={config.data.batch_size} counts the samples of all {count} devices and does not divide "
            f"by {count}; try {-(-config.data.batch_size // count) * count}"
        )
    command = ["-m", "mmrobust.training", str(folder)]
    if count > 1:  # torchrun: all ranks read the saved configuration, share the folder, and stop together
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", *command]
    if status := _wait([sys.executable, *command], folder):
        raise UserError(f"training in {folder} stopped with status {status}; the first error above says why")


def _wait(command: Sequence[str], folder: Path) -> int:
    """Run a process group of its own to its end; it gets our SIGTERM and Ctrl-C, once."""
    received: list[int] = []
    group = subprocess.Popen(command, start_new_session=True)

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        group.send_signal(signal.SIGTERM)

    main_thread = threading.current_thread() is threading.main_thread()  # only there handlers can be set
    before = {n: signal.signal(n, forward) for n in (signal.SIGTERM, signal.SIGINT)} if main_thread else {}
    try:
        status = group.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if group.poll() is None:
            os.killpg(group.pid, signal.SIGKILL)
    if received:
        raise Stopped(received[0], f"go on with: python -m mmrobust.run resume={folder}")
    return status


def count_devices(config: DictConfig) -> int:
    """How many processes this machine contributes."""
    devices, accelerator = config.trainer.devices, config.trainer.accelerator
    if devices == 1:
        return 1
    wanted = len(devices) if OmegaConf.is_list(devices) else -1 if devices == "auto" else int(devices)
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
    return there if wanted == -1 else wanted
