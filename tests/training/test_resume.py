"""An interrupted run, resumed, is the undisturbed run: bit for bit on the CPU."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from mmrobust.evaluation.results import read_results
from mmrobust.run import main
from tests.runs import differences, fault, in_a_process, outcome, tiny

SMALL = tiny(
    "encoder.width=16",
    "data.num_train=192",
    "data.num_val=64",
    "data.num_test=64",
    "data.batch_size=32",
    "data.num_modalities=3",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=2",
    "missing=mcar",
    "method.mining_epochs=1",
    "allow=[tests]",
    "keep=all",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert main([*SMALL, f"paths.run={folder}"]) == 0
    return outcome(folder)


def interrupt(tmp_path: Path, where: str, count: int, number: int, *more: str) -> int:
    argv = [*SMALL, *more, f"paths.run={tmp_path}/run", fault(where, count, number, tmp_path)]
    return in_a_process(argv, tmp_path / "output.txt")


MOMENTS = [
    ("batch", 2, 0),  # first epoch: nothing saved yet
    ("batch", 9, 0),  # in the middle of an epoch
    ("batch", 9, 2),
    ("validation", 2, 0),
    ("save", 1, 0),  # the first checkpoint, half written
    ("save", 4, 0),  # a later one: best is new, last is not
    ("between", 1, 0),  # training and evaluation
    ("test", 1, 0),
]


@pytest.mark.slow
def test_killed(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    for i, (where, count, workers) in enumerate(MOMENTS):
        folder = tmp_path / str(i)
        folder.mkdir()
        status = interrupt(folder, where, count, signal.SIGKILL, f"data.workers={workers}")
        assert status == -signal.SIGKILL
        assert not (folder / "run/results.json").exists()
        assert in_a_process([f"resume={folder}/run", "allow=[tests]"], folder / "output.txt") == 0
        wrong = differences(undisturbed, outcome(folder / "run"))
        assert wrong == [], f"killed at {where} {count} with {workers} workers"


STOPS = [  # where, count, workers, batches that the checkpoint has seen; six make an epoch
    ("batch", 9, 0, 9),
    ("batch", 3, 0, 3),
    ("batch", 8, 2, 8),
    ("batch", 6, 0, 6),  # the last of an epoch: its validation first, then stop
    ("batch", 18, 0, 18),  # the last of all
    ("validation", 2, 0, 6),
]


@pytest.mark.slow
def test_stopped(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """SIGTERM and Ctrl-C save in the middle of an epoch, and the resumed run does not repeat a batch."""
    for i, (where, count, workers, steps) in enumerate(STOPS):
        folder, number = tmp_path / str(i), (signal.SIGTERM, signal.SIGINT)[i % 2]
        folder.mkdir()
        assert interrupt(folder, where, count, number, f"data.workers={workers}") == 128 + number, where
        assert f"resume={folder}/run" in (folder / "output.txt").read_text()
        assert torch.load(folder / "run/checkpoints/last.ckpt", weights_only=True)["steps"] == steps
        moved = (folder / "run").rename(folder / "moved")  # a folder may move meanwhile
        assert in_a_process([f"resume={moved}", "allow=[tests]"], folder / "output.txt") == 0
        assert differences(undisturbed, outcome(moved)) == [], f"stopped at {where} {count}"


LEARNED = {  # method -> keys, and the part of its state that it learned about the data before the interruption
    "mmanet": (["method.warm_up=1", "method.mining_epochs=1", "trainer.max_epochs=3"], "mining.weak"),
    "udml": (["trainer.max_epochs=3"], "reliance.value"),
    "pmr": (["trainer.max_epochs=3"], "prototypes.m1.centres"),
    "qmf": (["trainer.max_epochs=3"], "loss_total"),
    "mla": (["trainer.max_epochs=3"], "projection"),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", LEARNED)
def test_what_a_method_has_learned_survives(method: str, tmp_path: Path) -> None:
    """Killed in the third epoch: mined combinations, reliance, prototypes, and the teacher are those of before."""
    keys, learned = LEARNED[method]
    small = [key for key in SMALL if not key.startswith("method.")]
    argv = [*small, f"method={method}", *keys, f"paths.outputs={tmp_path}/out"]
    assert main([*argv, f"paths.run={tmp_path}/whole"]) == 0
    killed = [*argv, f"paths.run={tmp_path}/run", fault("batch", 15, signal.SIGKILL, tmp_path)]
    assert in_a_process(killed, tmp_path / "output.txt") == -signal.SIGKILL
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert state[learned].any()
    assert in_a_process([f"resume={tmp_path}/run", "allow=[tests]"], tmp_path / "output.txt") == 0
    whole, run = outcome(tmp_path / "whole"), outcome(tmp_path / "run")
    assert differences(whole, run) == []
    if method == "mmanet":
        teachers = [read_results(tmp_path / name)["identity"]["teacher"] for name in ("whole", "run")]
        assert teachers[0] == teachers[1]
        assert teachers[0]["sha256"]


@pytest.mark.slow
def test_stopped_while_gradients_accumulate(tmp_path: Path) -> None:
    """Never between batches whose gradients belong together."""
    more = ["trainer.accumulate_grad_batches=4", "trainer.max_epochs=2"]
    assert main([*SMALL, *more, f"paths.run={tmp_path}/whole"]) == 0
    assert interrupt(tmp_path, "batch", 2, signal.SIGTERM, *more) == 143
    assert in_a_process([f"resume={tmp_path}/run", "allow=[tests]"], tmp_path / "output.txt") == 0
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "run")) == []


def test_the_same_command_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An interrupted run is not deleted by repeating its command, and never mixed with another configuration."""
    small = [*SMALL, "trainer.max_epochs=1", "data.num_train=32", f"paths.run={tmp_path}"]
    assert main(small) == 0
    before = outcome(tmp_path)
    (tmp_path / "results.json").unlink()
    assert main([*small, "optimizer.lr=0.1"]) == 2
    assert "holds an interrupted run of another configuration" in capsys.readouterr().err
    assert main(small) == 0
    assert "going on with the interrupted run" in capsys.readouterr().out
    assert differences(before, outcome(tmp_path)) == []


def test_resuming_a_complete_run_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "trainer.max_epochs=1", "data.num_train=32", f"paths.run={tmp_path}"]) == 0
    before = (tmp_path / "results.json").stat().st_mtime_ns
    assert main([f"resume={tmp_path}", "allow=[tests]"]) == 0
    assert (tmp_path / "results.json").stat().st_mtime_ns == before
    assert f"complete: {tmp_path}" in capsys.readouterr().out
    assert main([f"resume={tmp_path}", "optimizer.lr=0.1"]) == 2
    assert "optimizer.lr would make another run" in capsys.readouterr().err
    assert main(["resume=nowhere"]) == 2
    assert "nowhere is not a run's folder" in capsys.readouterr().err
