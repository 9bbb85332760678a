"""Faults to build into a run: each strikes once, where it is told to."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mmrobust.batch import Batch
from mmrobust.training import checkpoints


class Signal(Callback):
    """Sends this process a signal, once: a file remembers.

    Args:
        where: batch, validation, save (while the checkpoint is written), between (training and evaluation), test.
        count: the how-manieth time, from 1.
        number: of the signal; 9 cannot be caught.
        marker: the file.
    """

    def __init__(self, where: str, count: int, number: int, marker: str) -> None:
        self.where, self.count, self.number, self.marker = where, count, number, Path(marker)
        self.seen = 0

    def strike(self, where: str) -> None:
        if where == self.where and not self.marker.exists():
            self.seen += 1
            if self.seen == self.count:
                self.marker.touch()
                os.kill(os.getpid(), self.number)

    def setup(self, trainer: Trainer, method: LightningModule, stage: str) -> None:
        if self.where == "save" and stage == "fit" and not self.marker.exists():
            fsync = os.fsync

            def struck(file: int) -> None:
                self.strike("save")
                fsync(file)

            checkpoints.os.fsync = struck  # type: ignore[attr-defined]

    def on_train_batch_start(self, *_: Any) -> None:
        self.strike("batch")

    def on_validation_batch_end(self, *_: Any) -> None:
        self.strike("validation")

    def on_fit_end(self, trainer: Trainer, method: LightningModule) -> None:
        self.strike("between")

    def on_test_batch_end(self, *_: Any) -> None:
        self.strike("test")


class BadLoss(Callback):
    """Makes the weights infinite at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: Trainer, method: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.fit_loop.total_batch_idx == self.step:
            with torch.no_grad():
                next(method.parameters()).fill_(torch.inf)


class Fails(Callback):
    """Raises on one rank."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_rank == self.rank:
            (Path(trainer.default_root_dir) / "failed").touch()
            raise RuntimeError(f"rank {self.rank} fails on purpose")


class Witness(Callback):
    """Writes down, for every rank, the configuration, the folder and the learned state that it ended with."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_fit_end(self, trainer: Trainer, method: LightningModule) -> None:
        run = trainer.default_root_dir
        state = {
            "config": (Path(run) / "config.yaml").read_text(),
            "run": run,
            "job": os.environ.get("TORCHELASTIC_RUN_ID") or os.environ["SLURM_JOB_ID"],
            "lr": trainer.optimizers[0].defaults["lr"],
            "state": {name: value.cpu() for name, value in method.state_dict().items()},
        }
        self.folder.mkdir(exist_ok=True, parents=True)
        torch.save(state, self.folder / f"{Path(run).name}-{trainer.global_rank}.pt")


class Slow(Callback):
    """Waits after every batch."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *_: Any) -> None:
        time.sleep(self.seconds)


class Occupies(Callback):
    """Writes down from when to when training had which devices."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_fit_start(self, *_: Any) -> None:
        self.started = time.time()

    def on_fit_end(self, trainer: Trainer, method: LightningModule) -> None:
        self.folder.mkdir(exist_ok=True, parents=True)
        devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        line = f"{self.started} {time.time()} {devices} {os.getpid()}"
        (self.folder / f"{Path(trainer.default_root_dir).name}-{trainer.global_rank}").write_text(line)
