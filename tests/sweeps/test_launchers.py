"""How the jobs of sweeps are started: joblib, submitit, a real Slurm, Ray."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mmrobust.config.check import check_command_line
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.evaluation.results import read_results
from mmrobust.report import main as report
from mmrobust.run import main
from mmrobust.sweeps.launchers import _remove_left_over
from mmrobust.sweeps.needs import groups, needs
from mmrobust.training.locks import locked
from tests import slurm
from tests.runs import (
    differences,
    fault,
    finished,
    in_a_process,
    outcome,
    seen,
    started,
    tiny,
    until,
    witness,
)

SMALL = tiny(
    "encoder.norm=group",
    "data.num_val=32",
    "data.num_test=32",
    "data.batch_size=32",
    "trainer.max_epochs=2",
    "keep=all",
    "allow=[tests]",
)


def table(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert report([str(folder), "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    return "\n".join(line.rpartition(" | ")[0] for line in lines)  # the last column is time


# Words


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ("jobli", "hydra/launcher=jobli is not known; did you mean joblib?"),
        (
            "submit_slurm",
            "hydra/launcher=submit_slurm is not known; did you mean submitit_slurm or submitit_local?",
        ),
    ],
)
def test_a_misspelt_launcher(launcher: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        check_command_line([f"hydra/launcher={launcher}"], None, True)
    assert str(error.value) == message


def test_a_launcher_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmrobust.config.groups.find_spec", lambda name: None)
    for launcher, extra in {"ray": "ray", "submitit_slurm": "slurm", "joblib": "joblib"}.items():
        with pytest.raises(UserError, match="is not installed") as error:
            check_command_line([f"hydra/launcher={launcher}"], None, True)
        assert f"pip install 'mmrobust[{extra}]'" in str(error.value)
    assert check_command_line([], None, True) == []


def test_jobs_of_equal_needs_are_one_group() -> None:
    given = [[], ["trainer.devices=2", "trainer.num_nodes=2"], ["trainer.accelerator=cpu"], ["seed=1"]]
    given += [["trainer.devices=[0,1]", "threads=3", "data.workers=4"]]
    jobs = {number: needs(compose_config(overrides)) for number, overrides in enumerate(given)}
    assert (jobs[1].nodes, jobs[1].tasks, jobs[1].gpus, jobs[1].cores) == (2, 2, 2, 1)
    assert (jobs[2].tasks, jobs[2].gpus) == (1, 0)
    assert (jobs[4].tasks, jobs[4].gpus, jobs[4].cores) == (2, 2, 7)
    assert groups("submitit_slurm", {**jobs, 5: None}) == [[0, 3], [1], [2], [4], [5]]
    assert groups("joblib", {**jobs}) == [[0, 1, 2, 3, 4]]
    with pytest.raises(UserError, match="it must be said how many"):
        groups("submitit_slurm", {0: needs(compose_config(["trainer.devices=-1"]))})


def test_what_a_killed_sweep_left_is_removed(tmp_path: Path) -> None:
    """Not what another still uses, nor what is so young that it may not have its lock yet."""
    old = time.time() - 8 * 24 * 3600
    for name in ("dead", "young", "running"):
        (tmp_path / f".sweep-{name}").mkdir()
    with locked(tmp_path / ".sweep-running/lock"):
        for name in ("dead", "running"):
            os.utime(tmp_path / f".sweep-{name}", (old, old))
        _remove_left_over(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".sweep-running", ".sweep-young"]


def test_slurm_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setenv("PATH", str(tmp_path))
    jobs = ["-m", *SMALL, "method=dropout", f"paths.outputs={tmp_path}/out"]
    assert main([*jobs, "hydra/launcher=submitit_slurm"]) == 2
    printed = capsys.readouterr().err
    assert "start the sweep where Slurm's commands are" in printed
    assert "Traceback" not in printed


# This machine


@pytest.mark.slow
def test_a_sweep_is_stopped_killed_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On joblib: SIGTERM saves the jobs' state, SIGKILL loses no finished run; the end is that of an undisturbed one."""
    jobs = ["-m", *SMALL, "method=dropout", "seed=0,1,2"]
    assert main([*jobs, f"paths.outputs={tmp_path}/whole"]) == 0
    slow = [*jobs, "+callbacks.slow={_target_: tests.faults.Slow, seconds: 0.8}"]
    slow += [f"paths.outputs={tmp_path}/slow", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    parent = started(slow, tmp_path / "slow.txt")
    until(lambda: list(tmp_path.glob("slow/*/*/checkpoints/last.ckpt")))
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(120) == 128 + signal.SIGTERM
    assert " saved, " in (tmp_path / "slow.txt").read_text()
    assert "the same command goes on with what is not complete" in (tmp_path / "slow.txt").read_text()
    assert not finished(tmp_path / "slow")
    saved = list(tmp_path.glob("slow/*/*/checkpoints/last.ckpt"))
    assert saved
    assert any(torch.load(path, weights_only=True)["steps"] % 2 for path in saved)  # in the midst of an epoch

    parent = started(slow, tmp_path / "slow.txt")
    until(lambda: finished(tmp_path / "slow"))
    parent.kill()
    parent.wait()
    done = {folder: (folder / "results.json").stat().st_mtime_ns for folder in finished(tmp_path / "slow")}
    assert len(done) < 3
    assert main(slow) == 0
    assert len(finished(tmp_path / "slow")) == 3
    assert all((folder / "results.json").stat().st_mtime_ns == moment for folder, moment in done.items())
    assert " were complete" in capsys.readouterr().out
    assert table(tmp_path / "slow", capsys) == table(tmp_path / "whole", capsys)


@pytest.mark.slow
def test_a_stopped_job_stops_a_sweep_in_one_process(tmp_path: Path) -> None:
    jobs = [
        "-m",
        *SMALL,
        "method=dropout,fusion",
        f"paths.outputs={tmp_path}/out",
        fault("batch", 2, 15, tmp_path),
    ]
    assert in_a_process(jobs, tmp_path / "output.txt") == 128 + signal.SIGTERM
    text = "1 saved, 1 not started; the same command goes on with what is not complete"
    assert text in (tmp_path / "output.txt").read_text()
    assert len(list(tmp_path.glob("out/*/*/checkpoints/last.ckpt"))) == 1
    assert in_a_process(jobs, tmp_path / "output.txt") == 0
    assert len(finished(tmp_path / "out")) == 2


@pytest.mark.slow
def test_jobs_share_out_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a made-up name, which training on the CPU does not mind: two workers take turns."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "99")
    occupies = f"+callbacks.occupies={{_target_: tests.faults.Occupies, folder: {tmp_path}/seen}}"
    jobs = ["-m", *SMALL, "trainer.accelerator=auto", "method=dropout", "seed=0,1", occupies]
    jobs += [f"paths.outputs={tmp_path}/out", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert main(jobs) == 0
    lines = [path.read_text().split() for path in (tmp_path / "seen").iterdir()]
    assert [device for *_, device, _ in lines] == ["99", "99"]
    assert len({pid for *_, pid in lines}) == 2  # processes of their own
    (_, end), (start, _) = sorted((float(start), float(end)) for start, end, *_ in lines)
    assert end <= start


@pytest.mark.slow
def test_two_sweeps_at_once_make_each_run_once(tmp_path: Path) -> None:
    """The second waits for the first, and finds it complete."""
    slow = "+callbacks.slow={_target_: tests.faults.Slow, seconds: 0.5}"
    jobs = ["-m", *SMALL, "method=dropout", slow, f"paths.outputs={tmp_path}/out"]
    first = multiprocessing.get_context("fork").Process(
        target=lambda: sys.exit(in_a_process(jobs, tmp_path / "first.txt"))
    )
    first.start()
    until(lambda: list(tmp_path.glob("out/*/*/.lock")))
    assert in_a_process(jobs, tmp_path / "second.txt") == 0
    first.join()
    assert first.exitcode == 0
    (folder,) = finished(tmp_path / "out")
    assert f"{folder} is being run by another process" in (tmp_path / "second.txt").read_text()
    assert "epoch 1/2" not in (tmp_path / "second.txt").read_text()


@pytest.mark.slow
def test_submitit_on_this_machine(tmp_path: Path) -> None:
    """Two jobs, which start at once and are the same run."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    jobs = ["-m", *SMALL, "method=dropout", "data.workers=0,1", f"paths.outputs={tmp_path}/out"]
    output = tmp_path / "output.txt"
    assert in_a_process([*jobs, "hydra/launcher=submitit_local"], output) == 0
    (folder,) = finished(tmp_path / "out")
    logs = "".join(path.read_text() for path in tmp_path.glob("out/.hydra/.submitit/*/*_log.out"))
    assert logs.count("epoch 2/2") == 1
    assert logs.count("complete: ") == 1
    assert not list(folder.parent.glob("*-2"))


@pytest.mark.slow
def test_ray(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="ray is not installed")
    jobs = ["-m", *SMALL, "method=dropout", "seed=0,1", f"paths.outputs={tmp_path}/out"]
    parent = started([*jobs, "hydra/launcher=ray"], tmp_path / "output.txt")
    assert parent.wait(300) == 0, (tmp_path / "output.txt").read_text()
    assert len(finished(tmp_path / "out")) == 2


# Slurm


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    if reason := slurm.absent():
        pytest.skip(f"no Slurm here: {reason}")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.mark.long
def test_slurm(cluster: dict[str, str], tmp_path: Path) -> None:
    """A sweep whose first jobs are pre-empted in the midst of an epoch ends like an undisturbed one."""
    slow = "+callbacks.slow={_target_: tests.faults.Slow, seconds: 0.4}"
    jobs = ["-m", *SMALL, "data.num_train=256", "method=dropout,dmrnet", "seed=0,1", slow]
    on = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=low"]
    sweep = started([*jobs, f"paths.outputs={tmp_path}/out", *on], tmp_path / "output.txt", **cluster)
    until(lambda: list(tmp_path.glob("out/*/*/checkpoints/last.ckpt")))
    hosts = slurm.call(cluster, "sinfo", "-h", "-o", "%c")
    slurm.call(cluster, "sbatch", "-p", "high", f"--ntasks={hosts}", "-o", "/dev/null", "--wrap", "sleep 1")
    assert main([*jobs, f"paths.outputs={tmp_path}/whole"]) == 0  # meanwhile
    assert sweep.wait(400) == 0, (tmp_path / "output.txt").read_text()
    wholes, runs = finished(tmp_path / "whole"), finished(tmp_path / "out")
    assert len(runs) == 4
    assert [run.name for run in runs] == [whole.name for whole in wholes]
    for whole, run in zip(wholes, runs, strict=True):
        assert differences(outcome(whole), outcome(run)) == []
    resumed = [run for run in runs if "resumed" in (run / "log.txt").read_text()]
    assert resumed
    logs = "".join(path.read_text() for path in tmp_path.glob("out/.hydra/.submitit/*/*_log.*"))
    assert "stopping after this batch" in logs
    assert "going on with the interrupted run" in logs


@pytest.mark.long
def test_ranks_are_tasks_of_slurm(cluster: dict[str, str], tmp_path: Path) -> None:
    """Jobs of different needs in one sweep; two tasks train one run in one folder."""
    jobs = ["-m", *SMALL, "method=dropout", "trainer.devices=1,2", witness(tmp_path / "seen")]
    sweep = started(
        [*jobs, f"paths.outputs={tmp_path}/out", "hydra/launcher=submitit_slurm"],
        tmp_path / "output.txt",
        **cluster,
    )
    assert sweep.wait(400) == 0, (tmp_path / "output.txt").read_text()
    one, two = sorted(seen(tmp_path / "seen").values(), key=len)
    assert (len(one), len(two)) == (1, 2)
    assert two[0]["job"] == two[1]["job"] != one[0]["job"]
    assert two[0]["run"] == two[1]["run"]
    for name, value in two[0]["state"].items():
        assert torch.equal(value, two[1]["state"][name])
    assert {read_results(run)["status"] for run in finished(tmp_path / "out")} == {"complete"}
