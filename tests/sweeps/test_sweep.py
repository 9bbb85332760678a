"""The driver of sweeps: which values are checked, which spaces are shipped, what is held in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmrobust.config.check import check_command_line
from mmrobust.config.compose import conf_folder
from mmrobust.run import main
from mmrobust.sweeps.forget import Forget
from mmrobust.sweeps.space import grid, with_declared

SPACES = sorted(path.stem for path in (conf_folder() / "sweep/space").glob("*.yaml"))


def test_every_method_has_a_space() -> None:
    methods = {path.stem for path in (conf_folder() / "method").glob("*.yaml")}
    assert methods <= {*SPACES}


@pytest.mark.parametrize("name", [name for name in SPACES if name != "lr"])
def test_a_space_is_its_methods(name: str) -> None:
    """Its keys are there, and the ends of its ranges are allowed."""
    given = with_declared(["sweep=optuna", f"sweep/space={name}", f"method={name}"], None)
    assert any(text.startswith("optimizer.lr=tag(log,") for text in given)
    assert check_command_line(given, None, multirun=True) == []


def test_the_table_runs_every_method() -> None:
    jobs = grid(with_declared(["sweep=table", "data=avmnist"], None))
    methods = {path.stem for path in (conf_folder() / "method").glob("*.yaml")} - {"dedicated"}
    assert {text for job in jobs for text in job if text.startswith("method=")} == {
        f"method={m}" for m in methods
    }
    assert len(jobs) == 3 * len(methods)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["optimizer.lr=interval(0.1,0.2)"], "add sweep=optuna"),
        (["seed=range(3,3)"], "is an empty range"),
        (["seed=[]"], "seed=[] is not a whole number"),
        (["method="], "method= is not known"),
        (["seed=range(70)", "optimizer.lr=0.1,-0.1"], "optimizer.lr=-0.1 is below 0"),
        (["sweep=gird"], "did you mean grid"),
        (["method=glob(x*)"], "method=glob(x*) matches no choice"),
        (["keep=some"], "choose best, last, all or none"),
    ],
)
def test_refused(given: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *given, f"paths.outputs={tmp_path}/out"]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_sweep_needs_m(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep=optuna"]) == 2
    assert "sweep=optuna is about many runs; add -m" in capsys.readouterr().err


def test_launchers_hold_no_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of all jobs, until the last has ended, were a leak of a third of a MiB a run."""
    ended: list[Any] = []
    forget = Forget.on_job_end

    def noted(self: Forget, config: Any, job_return: Any, **keys: Any) -> None:
        assert job_return.cfg is not None
        forget(self, config, job_return, **keys)
        ended.append(job_return)  # what the launcher holds

    monkeypatch.setattr(Forget, "on_job_end", noted)
    too_large = [
        "data=synthetic",
        "data.num_train=64",
        "data.batch_size=128",
        "seed=0,1",
    ]  # which ends a job at once
    assert main(["-m", *too_large, f"paths.outputs={tmp_path}"]) == 1
    assert [(job.cfg, job.hydra_cfg) for job in ended] == [(None, None)] * 2
