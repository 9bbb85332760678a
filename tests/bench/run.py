"""What a run costs beside its steps: the answer to a wrong command line, resuming, memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.testing import make_batch
from mmrobust.training.checkpoints import load_checkpoint
from mmrobust.training.session import build_method
from mmrobust.training.trainer import build_trainer
from tests.bench.plain import plain_steps


def cli_error_seconds(rounds: int) -> dict[str, Any]:
    """From a mistyped command line to its message."""
    command = [sys.executable, "-m", "mmrobust.run", "method=dmrnett", "trainer.max_epoch=3"]
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        assert subprocess.run(command, capture_output=True, check=False).returncode == 2
        seconds.append(time.perf_counter() - started)
    return {
        "name": "cli_error_seconds",
        "value": round(statistics.median(seconds[1:]), 3),
        "unit": "s",
        "against": "nothing: wall time of the process",
        "conditions": {"goal": 1.2, "rounds": rounds, "command": " ".join(command[1:])},
    }


class Moments(Callback):
    """When training began and when each batch came; at a batch it saves a checkpoint and stops."""

    def __init__(self, stop_after: int | None, path: Path) -> None:
        self.stop_after, self.path = stop_after, path
        self.batches: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.batches.append(time.perf_counter())

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if len(self.batches) == self.stop_after:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True
            trainer.limit_val_batches = 0


def resume_overhead_ratio(rounds: int) -> dict[str, Any]:
    """How much later than in a fresh run the first batch comes when a run goes on in the middle of an epoch, over
    the time of an epoch."""
    choices = [
        "data=synthetic",
        "trainer=cpu",
        "logger=none",
        "trainer.max_epochs=3",
        "trainer.limit_val_batches=0",
    ]
    ratios = []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            config = compose_config([*choices, f"paths.run={folder}"])
            path = Path(folder) / "middle.ckpt"

            def fit(stop_after: int | None, resumed: bool) -> tuple[float, list[float]]:
                data = construct(config.data)  # noqa: B023
                data.setup()
                method = build_method(config, data.spec)  # noqa: B023
                moments = Moments(stop_after, path)  # noqa: B023
                trainer = build_trainer(config, Path(folder), method)  # noqa: B023
                trainer.callbacks.append(moments)  # type: ignore[attr-defined]
                started = time.perf_counter()
                if resumed:
                    steps = load_checkpoint(path)["loops"]["fit_loop"]["epoch_loop.batch_progress"]  # noqa: B023
                    data.position = (1, steps["current"]["completed"] + 1)
                with redirect_stdout(sys.stderr), redirect_stderr(Path(os.devnull).open("w")):
                    trainer.fit(method, datamodule=data, ckpt_path=path if resumed else None)  # noqa: B023
                return moments.batches[0] - started, moments.batches

            per_epoch = 32
            fresh, batches = fit(per_epoch + per_epoch // 2, resumed=False)
            epoch = batches[per_epoch] - batches[0]
            resumed, _ = fit(1, resumed=True)
            ratios.append((resumed - fresh) / epoch)
    return {
        "name": "resume_overhead_ratio",
        "value": round(statistics.median(ratios[1:]), 4),
        "unit": "ratio",
        "against": "one training epoch",
        "conditions": {"rounds": rounds, "data": "synthetic, 2048 samples", "encoder": "tiny", "threads": 1},
    }


def peak_memory_ratio() -> dict[str, Any]:
    """Peak memory of a process that trains through the framework over that of a hand-written loop."""
    size, pixels, steps = 16, 96, 12
    config = compose_config(
        ["method=dmrnet", "encoder=resnet18", "trainer=cpu", "logger=csv", "trainer.max_epochs=1"]
    )
    spec = DataSpec(
        "classification", 8, 1, {name: Modality("image", (3, pixels, pixels)) for name in ("m1", "m2")}
    )

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            config.paths.run = folder
            config.trainer.limit_val_batches = 0
            method = build_method(config, spec)
            batches = [make_batch(spec, size, seed=i % 2) for i in range(steps)]
            build_trainer(config, Path(folder), method).fit(method, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]

    def plain() -> None:
        keys = {key: value for key, value in config.optimizer.items() if not str(key).startswith("_")}
        step = plain_steps(
            build_method(config, spec), [make_batch(spec, size, seed=i) for i in range(2)], keys, "cpu"
        )
        for _ in range(steps):
            step()

    mebibytes = [_peak(work) for work in (ours, plain)]
    return {
        "name": "peak_memory_ratio",
        "value": round(mebibytes[0] / mebibytes[1], 4),
        "unit": "ratio",
        "against": "the peak memory of a hand-written loop in a process with the same imports",
        "conditions": {
            "goal": 1.1,
            "mebibytes": mebibytes,
            "encoder": "resnet18",
            "batch": size,
            "pixels": pixels,
        },
    }


def _peak(work: Callable[[], None]) -> float:
    """MiB that a forked process took at most."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def child() -> None:
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
        torch.set_num_threads(1)
        work()
        queue.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)

    process = context.Process(target=child)
    process.start()
    peak = round(queue.get(timeout=300), 1)
    process.join()
    return float(peak)
