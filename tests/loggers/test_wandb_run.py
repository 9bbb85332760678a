"""Whole runs as W&B gets them: resumed, made again, on two ranks, of a sweep, without a connection."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmrobust.config.compose import compose_config, conf_folder
from mmrobust.config.wandb_rules import check_wandb
from mmrobust.evaluation.results import read_results
from mmrobust.loggers import wandb_run
from mmrobust.loggers.wandb_segment import STEP, Segment
from mmrobust.run import main
from tests.loggers.offline import config, make, runs
from tests.loggers.offline import nobody_logged_in as nobody_logged_in
from tests.runs import fault, in_a_process, tiny


@pytest.fixture(autouse=True)
def this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a test starts, in its own folder, import this checkout."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "segments"), [(9, 1), (15, 2)], ids=["killed", "stopped"])
def test_a_resumed_run_goes_on_with_its_wandb_run(number: int, segments: int, tmp_path: Path) -> None:
    """Interrupted in the second epoch, moved, resumed: one id, no value twice, the steps in order, nothing lost.

    A killed process leaves a file that W&B has not written to the end; all of it is in the second.
    """
    argv = tiny("data.num_train=96", "trainer.max_epochs=3", "trainer.log_every_n_steps=2", "logger=both")
    argv += ["allow=[tests]", "keep=all", f"paths.run={tmp_path}/run", fault("batch", 11, number, tmp_path)]
    assert in_a_process(argv, tmp_path / "output.txt") == (-9 if number == 9 else 143)
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    before = Segment(moved, json.loads((moved / "wandb_run.jsonl").read_text().split("\n")[0])["config_hash"])
    assert in_a_process([f"resume={moved}", "allow=[tests]"], tmp_path / "output.txt") == 0
    written = runs(moved)
    assert len(written) == segments
    assert {part.run.run_id for part in written} == {before.id}
    assert len({part.run.run_group for part in written}) == 1
    rows = [row for part in written for row in part.rows]
    logged: dict[tuple[str, int], float] = {}
    for row in rows:
        for name in row.keys() - {STEP, "epoch", "_step", "_runtime", "_timestamp"}:
            assert (name, row[STEP]) not in logged, name
            logged[name, row[STEP]] = row[name]
    steps = [row[STEP] for row in rows]
    assert steps == sorted(steps)
    assert {step for name, step in logged if name == "train/loss"} == {1, 3, 5, 7, 9, 11, 13, 15, 17}
    with (moved / "metrics.csv").open() as file:
        for line in csv.DictReader(file):
            for name in line.keys() - {"step", "epoch"}:
                if line[name]:
                    assert logged[name, int(line["step"])] == pytest.approx(float(line[name])), name
    assert written[-1].exit_code == 0
    assert written[-1].summary["test/average/accuracy"] is not None


@pytest.mark.slow
def test_two_ranks_are_one_wandb_run(tmp_path: Path) -> None:
    small = tiny("logger=both", "trainer.devices=2")
    assert main([*small, f"paths.run={tmp_path}/run"]) == 0
    (written,) = runs(tmp_path / "run")
    results = read_results(tmp_path / "run")
    assert written.summary["test/average/accuracy"] == pytest.approx(
        results["aggregates"]["average"]["accuracy"]
    )
    assert sum("val/average/accuracy" in row for row in written.rows) == 1


@pytest.mark.slow
def test_teacher_checkpoint_and_configuration(tmp_path: Path) -> None:
    """A student and the teacher made for it; the tested checkpoint with what it is."""
    keys = ["method=distillation", "missing=mcar", "missing.train.rate=0.3", "logger.wandb.checkpoint=best"]
    keys += ["logger.wandb.group=my sweep", "logger.wandb.name=mine"]
    assert main([*tiny(), "logger=wandb", *keys, f"paths.outputs={tmp_path}"]) == 0
    (folder,) = tmp_path.glob("distillation_synthetic/*")
    (student,) = runs(folder)
    (teacher,) = runs(next(tmp_path.glob("teachers/*")))
    assert (student.run.display_name, student.run.job_type) == ("mine", "distillation")
    assert (teacher.run.display_name, teacher.run.job_type) == ("fusion synthetic seed 0", "teacher")
    assert student.run.run_group == teacher.run.run_group == "my sweep"
    expected = {"method": "distillation", "data": "synthetic", "missing.train.rate": 0.3, "seed": 0}
    assert expected.items() <= student.config.items()
    assert student.config["method.temperature"] == compose_config(["method=distillation"]).method.temperature
    identity = read_results(folder)["identity"]
    assert student.config["config_hash"] == identity["config_hash"] == folder.name
    (artifact,) = [found for found in student.artifacts if found.type == "model"]
    metadata = json.loads(artifact.metadata)
    assert metadata["config_hash"] == identity["config_hash"]
    assert metadata["test/average/accuracy"] == read_results(folder)["aggregates"]["average"]["accuracy"]
    (content,) = artifact.manifest.contents
    assert Path(content.local_path).samefile(folder / "checkpoints/best.ckpt")


@pytest.mark.slow
def test_what_an_agent_of_a_sweep_runs(tmp_path: Path) -> None:
    """The command of conf/wandb_sweep.yaml as W&B's agent fills it in, in a process with the agent's variables."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
    from wandb.sdk.lib import config_util

    sweep = yaml.safe_load((conf_folder() / "wandb_sweep.yaml").read_text())
    sampled = {key: {"value": sample(keys)} for key, keys in sweep["parameters"].items()}
    filled = {"env": ["/usr/bin/env"], **create_sweep_command_args({"args": sampled})}
    command: list[str] = []
    for part in create_sweep_command(sweep["command"]):
        command += filled[part[2:-1]] if part.startswith("${") else [part]
    assert command[:4] == ["/usr/bin/env", "python", "-m", "mmrobust.run"]
    assert "optimizer.lr=0.001" in command
    config_util.save_config_file_from_dict(str(tmp_path / "config.yaml"), sampled)
    agent = {"WANDB_SWEEP_ID": "abc123", "WANDB_RUN_ID": "run45678", "WANDB_MODE": "offline"}
    agent |= {"WANDB_SWEEP_PARAM_PATH": str(tmp_path / "config.yaml")}
    agent |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command += [*tiny(), f"paths.outputs={tmp_path}/out"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | agent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "out").glob("dropout_synthetic/*")
    (written,) = runs(folder)
    assert written.run.run_id == "run45678"
    assert written.run.sweep_id == "abc123"
    assert sweep["metric"]["name"] in written.summary
    for key, value in sampled.items():
        assert written.config[key] == value["value"], key


def sample(keys: dict[str, Any]) -> Any:
    if "values" in keys:
        return keys["values"][0]
    assert keys["distribution"] == "log_uniform_values"
    return round((keys["min"] * keys["max"]) ** 0.5, 6)


@pytest.mark.slow
def test_trials_of_a_study_are_a_group() -> None:
    """Whatever they try; runs that differ in the seed alone are another."""
    first, second = (
        wandb_run.names(config(0, f"study={{name: mine, trial: {n}}}", f"optimizer.lr={1e-3 * (n + 1)}"))
        for n in range(2)
    )
    assert first == {"name": "dmrnet synthetic trial 1", "group": "study mine", "job_type": "trial"}
    assert second == {**first, "name": "dmrnet synthetic trial 2"}
    final = wandb_run.names(config(3, "study.trials=2"))
    assert (final["job_type"], final["group"]) == ("dmrnet", wandb_run.names(config(0))["group"])


def test_a_teacher_does_not_take_the_agents_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "run45678")
    student, teacher = make(tmp_path / "student"), make(tmp_path / "teacher", job_type="teacher")
    ids = []
    for logger in (student, teacher):
        logger.log_hyperparams(config(0))
        ids.append(logger.segment.id)
        logger.finalize("failed")
    assert ids[0] == "run45678"
    assert ids[1] != "run45678"


class Refusing(threading.Thread):
    """A server that hangs up on everyone, and counts."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.count = 0

    def run(self) -> None:
        while True:
            try:
                self.socket.accept()[0].close()
            except OSError:
                return
            self.count += 1


@pytest.mark.slow
def test_a_sweep_tries_a_lost_connection_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Refusing()
    server.start()
    monkeypatch.setattr(wandb_run, "CONNECT_SECONDS", 1)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    counts = []
    with wandb_run.one_attempt():
        for name in ("first", "second"):
            logger = make(tmp_path / name)
            logger.log_hyperparams(config(0))
            logger.finalize("failed")
            counts.append(server.count)
    assert counts[0] == counts[1] > 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "W&B is offline" in line]
    assert [
        f"wandb sync {tmp_path}/{name}/wandb" in line
        for name, line in zip(("first", "second"), lines, strict=True)
    ]
    assert len(runs(tmp_path / "first")) == len(runs(tmp_path / "second")) == 1
    server.socket.close()


def test_a_wrong_key_is_told_before_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Online it is a mistake; otherwise the runs are offline, which is said once, and never the key."""
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    online = ["logger=wandb", "logger.wandb.mode=online", "logger.wandb.checkpoint=all", "seed=-1"]
    assert main([*online, f"paths.outputs={tmp_path}/out"]) == 2
    printed = capsys.readouterr().err
    for words in ("WANDB_API_KEY is not a key of W&B", "40", "mode=offline", "checkpoint=all", "seed=-1"):
        assert words in printed
    assert not (tmp_path / "out").exists()
    for _ in range(3):
        assert check_wandb(compose_config(["logger=both"])) == []
    printed += (told := capsys.readouterr().err)
    assert told.count("WANDB_API_KEY") == 1
    assert "offline" in told
    assert "secret" not in printed
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert check_wandb(compose_config(["logger=wandb", "logger.wandb.mode=online"])) == []


def test_checking_the_key_imports_no_torch() -> None:
    code = (
        "import sys; from mmrobust.config.check import check_command_line as check;"
        "check(['logger=wandb'], None, False); assert 'wandb' in sys.modules; assert 'torch' not in sys.modules;"
    )
    environment = os.environ | {"WANDB_API_KEY": "short", "WANDB_MODE": "auto"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WANDB_API_KEY is not a key" in done.stderr
