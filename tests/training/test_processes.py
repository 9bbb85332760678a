"""Processes that a launcher started: who leads, what each is told, and what does not go together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmrobust.evaluation.results import read_results
from mmrobust.run import main
from mmrobust.training.checkpoints import checkpoint_path
from mmrobust.training.children import stop_signals
from mmrobust.training.devices import Place, place
from tests.runs import free_port, tiny

SMALL = tiny("trainer.num_nodes=2")
TORCH = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Place(0, 1, None, "nobody")),
        (TORCH, Place(1, 4, None, "the launcher (RANK, WORLD_SIZE)")),
        (TORCH | {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2"}, Place(1, 4, 2, "torchrun")),
        (SRUN, Place(3, 4, 2, "srun")),
        (SRUN | TORCH, Place(1, 4, None, "the launcher (RANK, WORLD_SIZE)")),  # torchrun in a task of srun
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, Place(0, 1, None, "nobody")),  # a batch script
    ],
)
def test_which_process_this_is(environment: dict[str, str], expected: Place) -> None:
    assert place(environment) == expected


def together(commands: list[list[str]], environments: list[dict[str, str]]) -> list[tuple[int, str]]:
    """Start them at once; their exit statuses and outputs."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *command],
            env=clean | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for command, more in zip(commands, environments, strict=True)
    ]
    ends = []
    for process in processes:
        output = process.communicate(timeout=300)[0]
        ends.append((process.returncode, output))
    return ends


@pytest.mark.slow
def test_two_nodes_of_torchrun(tmp_path: Path) -> None:
    """One folder, whose name the first decides, a teacher that both train, and a result of all samples."""
    node = ["torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"]
    node += [f"--rdzv-endpoint=127.0.0.1:{free_port()}", "-m", "mmrobust.run"]
    run = [*node, *SMALL, "method=distillation", f"paths.outputs={tmp_path}"]
    ends = together([run, run], [{}, {}])
    assert [status for status, _ in ends] == [0, 0], "\n".join(output for _, output in ends)
    (folder,) = tmp_path.glob("distillation_synthetic/*")
    (teacher,) = tmp_path.glob("teachers/*")
    results = read_results(folder)
    assert results["identity"]["teacher"]["run"] == str(teacher)
    assert results["combinations"]["m1+m2"]["n"] == 16
    assert results["optimization"]["effective_batch"] == 16
    for path in (folder, teacher):
        assert "8 on each of 2 devices" in (path / "log.txt").read_text()
    assert sum("training the teacher" in output for _, output in ends) == 1


@pytest.mark.slow
def test_two_tasks_of_srun(tmp_path: Path) -> None:
    """By its variables; the second time in a second folder."""
    tasks = []
    for rank in ("0", "1"):
        tasks.append(
            {
                "SLURM_PROCID": rank,
                "SLURM_NODEID": rank,
                "SLURM_LOCALID": "0",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_STEP_NUM_NODES": "2",
                "SLURM_STEP_NODELIST": "localhost",
                "MASTER_PORT": free_port() if not tasks else tasks[0]["MASTER_PORT"],
            }
        )
    run = ["mmrobust.run", *SMALL, "method=dropout", f"paths.run={tmp_path}/run"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run/results.json").write_text('{"schema": 1, "status": "complete"}')
    ends = together([run, run], tasks)
    assert [status for status, _ in ends] == [0, 0], "\n".join(output for _, output in ends)
    assert read_results(tmp_path / "run-2")["combinations"]["m1+m2"]["n"] == 16
    assert checkpoint_path(tmp_path / "run-2").is_file()
    assert sum("results.json" in output for _, output in ends) == 1


@pytest.mark.slow
def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    """By the first process; the others end with it."""
    port = free_port()
    environments = [
        {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for rank in ("0", "1")
    ]
    run = ["mmrobust.run", *SMALL, "trainer.devices=2", f"paths.run={tmp_path}/run"]
    (first, told), (second, nothing) = together([run, run], environments)
    assert (first, second) == (2, 0)
    assert "started 2 processes, but trainer.devices=2 on trainer.num_nodes=2 are 4" in told
    assert "error" not in nothing
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without GPUs says")
@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([], "trainer.num_nodes=2, but only this process was started; start the same command on every node"),
        (["trainer.num_nodes=0"], "trainer.num_nodes=0 is below 1"),
        (["trainer.num_nodes=1", "trainer.sync_batchnorm=true"], "trainer.sync_batchnorm=true needs GPUs"),
        (
            ["trainer.num_nodes=1", "trainer.accelerator=gpu"],
            "trainer.accelerator=gpu, but this machine has no GPU",
        ),
        (["trainer.compile=fast"], "trainer.compile=fast is not known"),
    ],
)
def test_what_does_not_go_together_is_told_first(
    keys: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, *keys, f"paths.run={tmp_path}/run"]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_which_signals_stop() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert stop_signals() == (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        assert stop_signals() == (signal.SIGTERM, signal.SIGINT)
    finally:
        signal.signal(signal.SIGHUP, before)
