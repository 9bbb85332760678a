"""Whole runs in tests: the overrides of a small one, processes that make it, what it leaves, and what differs."""

from __future__ import annotations

import csv
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mmrobust.config.overrides import key_of
from mmrobust.evaluation.results import read_predictions, read_results
from mmrobust.run import main

# Four steps on one core.
TINY = (
    "data=synthetic",
    "data.num_train=64",
    "data.num_val=16",
    "data.num_test=16",
    "data.batch_size=16",
    "encoder.width=8",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
)


def tiny(*changes: str) -> list[str]:
    """The overrides of a tiny run; those given take the place of the ones of the same key."""
    changed = {key_of(text) for text in changes}
    return [*(text for text in TINY if key_of(text) not in changed), *changes]


def fault(where: str, count: int, number: int, folder: Path) -> str:
    """The override that builds in a signal, which strikes once, see `tests.faults.Signal`."""
    keys = f"where: {where}, count: {count}, number: {number}, marker: {folder}/marker"
    return f"+callbacks.fault={{_target_: tests.faults.Signal, {keys}}}"


# Processes


def _forked(argv: list[str], output: Path, environment: Mapping[str, str]) -> Any:
    """A process that runs `main`, forked so that nothing is imported anew."""

    def child() -> None:
        os.environ.update(environment)
        with output.open("w") as file:
            sys.stdout = sys.stderr = file
            torch.set_num_threads(1)
            sys.exit(main(argv))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def _status(process: Any) -> int:
    process.join(300)
    assert process.exitcode is not None
    status: int = process.exitcode
    return status


def in_a_process(argv: list[str], output: Path) -> int:
    """Run `main` in a process of its own; its exit status."""
    return _status(_forked(argv, output, {}))


def on_two_ranks(argv: list[str], folder: Path) -> None:
    """Run `main` as two processes of a launcher, which must succeed."""
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    shared |= {"GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    outputs = [folder / f"rank{rank}.txt" for rank in range(2)]
    folder.mkdir(exist_ok=True)
    ranks = [
        _forked([*argv, "trainer.devices=2"], output, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank, output in enumerate(outputs)
    ]
    statuses = [_status(process) for process in ranks]
    assert statuses == [0, 0], "\n".join(path.read_text() for path in outputs)


def started(argv: list[str], output: Path, **variables: str) -> subprocess.Popen[bytes]:
    """The command, started from nothing."""
    command = [sys.executable, "-m", "mmrobust.run", *argv]
    with output.open("a") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | variables)


def until(done: Callable[[], object], seconds: float = 240) -> None:
    """Wait for it."""
    ended = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ended, "waited for nothing"
        time.sleep(0.05)


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


# What they leave


def finished(outputs: Path) -> list[Path]:
    """The folders of the runs that have a result."""
    return sorted(path.parent for path in outputs.glob("*/*/results.json"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Those of a run's last checkpoint."""
    path = folder / "checkpoints/last.ckpt"
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that must be equal."""
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    best = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    results = read_results(folder)
    with (folder / "metrics.csv").open() as file:
        rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
    merged: dict[str, dict[str, str]] = {}
    for row in rows:
        assert not merged.get(row["step"], {}).keys() & row.keys() - {"step", "epoch"}, (
            f"step {row['step']} is logged twice"
        )
        merged.setdefault(row["step"], {}).update(row)
    return {
        "last": last["state_dict"],
        "best": best["state_dict"],
        "optimizer": last["optimizer_states"],
        "schedule": last["lr_schedulers"],
        "combinations": results["combinations"],
        "aggregates": results["aggregates"],
        "logits": torch.from_numpy(read_predictions(folder / "predictions.npz")["logits"]),
        "metrics": merged,
    }


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The parts in which two outcomes differ, by whatever bit."""
    return [key for key in a if not _same(a[key], b[key])]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def witness(folder: Path) -> str:
    """The override that has every rank write down what it ended with, see `tests.faults.Witness`."""
    return f"+callbacks.witness={{_target_: tests.faults.Witness, folder: {folder}}}"


def seen(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Run -> what its ranks wrote down."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.pt")):
        found.setdefault(path.stem.rpartition("-")[0], []).append(torch.load(path, weights_only=True))
    return found
