"""The folder of a run that somebody sends: nothing that its files name is run, whichever command reads them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from mmrobust import evaluate, report
from mmrobust.config.confined import confined
from mmrobust.config.identity import load_run_config
from mmrobust.errors import UserError
from mmrobust.run import main
from mmrobust.training.session import open_trained
from tests.runs import tiny

SMALL = tiny("data.num_train=16", "data.num_val=8", "data.num_test=8", "data.batch_size=8", "keep=all")


Capture = pytest.CaptureFixture[str]


class Malicious:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("trap"),)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main([*SMALL, "method=fusion", f"paths.run={folder}"]) == 0
    return folder


@pytest.fixture
def foreign(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, beside what it may set off: `evil.py`, a pickle; we stand there, too."""
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path('trap').touch()\nclass Fly: pass\n")
    torch.save(Malicious(), tmp_path / "evil.pth")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return shutil.copytree(run, tmp_path / "run")


TOUCH = {
    "_target_": "mmrobust.training.children._wait",
    "command": ["touch", "trap"],
    "folder": "x",
    "environment": {"PATH": "/usr/bin:/bin"},
}
PICKLE = {"checkpoint_path": "evil.pth", "weights_only": False}
LATE = {"_target_": "mmrobust.training.children._wait", "_partial_": True}
CALLBACK = "lightning.pytorch.callbacks.LambdaCallback"

CHANGES: dict[str, dict[str, Any]] = {
    "schedule": {"method.schedule": TOUCH},
    "data": {"data": TOUCH},
    "callback": {"callbacks": {"x": TOUCH}},
    "pickle by timm": {"data": {"_target_": "timm.models._helpers.load_state_dict", **PICKLE}},
    "pickle by Lightning": {"data": {"_target_": "lightning.pytorch.LightningModule.load_from_checkpoint", **PICKLE}},
    # of our own
    "encoder": {"method.encoder.m1.name": "evil.Fly"},
    "declared by the file": {"allow": ["evil", "tests"], "callbacks": {"x": {"_target_": "evil.Fly"}}},
    "metric": {"metrics": {"x": TOUCH}},
    "logger, partial": {"logger.csv": LATE},
    "argument": {"callbacks": {"x": {"_target_": CALLBACK, "on_fit_start": LATE}}},
    "functools": {"method.optimizer": {"_target_": "functools.partial", "_args_": [TOUCH]}},
    "class of no role": {"method.fusion": {"_target_": "mmrobust.methods.teacher.Path", "_args_": ["trap"]}},
    "alias": {"method.optimizer": {"_target_": "torch.optim.lr_scheduler.types.FunctionType", "_partial_": True}},
    "fusion in a list": {"method.encoder.options": {"x": [{"_target_": "torch.hub.load", "repo_or_dir": "x"}]}},
    "method": {"method": {"_target_": "mmrobust.run.main", "argv": []}},
    "noise": {"data.noise.train": TOUCH},
    "reference": {"data.root": "${oc.env:HOME}"},
    "hidden reference": {"data.missing.test.rate": "\\${oc.env:HOME}"},
}  # fmt: skip


CHECKPOINTS = "lightning.pytorch.callbacks.ModelCheckpoint"
ELSEWHERE: dict[str, dict[str, Any]] = {
    "callback": {"callbacks": {"x": {"_target_": CHECKPOINTS, "dirpath": "elsewhere"}}},
    "file name": {"callbacks": {"x": {"_target_": CHECKPOINTS, "filename": "../../elsewhere/x"}}},
    "within a list": {"callbacks": {"x": {"_target_": CALLBACK, "on_fit_start": [{"y": "/elsewhere"}]}}},
    "logger": {"logger": {"x": {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "root_dir": "elsewhere"}}},
    "name of a logger": {"logger.csv": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": ".", "name": "../elsewhere"}},
    "server": {"logger": {"x": {"_target_": "lightning.pytorch.loggers.MLFlowLogger", "tracking_uri": "http://example.com"}}},
    "study": {"study": {"name": "s", "trial": 0, "storage": "elsewhere/s.journal", "pruner": {"pruner": "median"}}},
    "study in SQLite": {"study": {"name": "s", "trial": 0, "storage": "sqlite:///elsewhere.db", "pruner": {"pruner": "median"}}},
    "cache of weights": {"method.encoder.options": {"cache_dir": "elsewhere"}},
}  # fmt: skip


def change(folder: Path, case: str) -> None:
    change_to(folder, CHANGES[case])


def change_to(folder: Path, values: dict[str, Any]) -> None:
    config = OmegaConf.load(folder / "config.yaml")
    for key, value in values.items():
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    OmegaConf.save(config, folder / "config.yaml")


def evaluated(folder: Path) -> int:
    return evaluate.main([f"run={folder}"])


def resumed(folder: Path) -> int:
    (folder / "results.json").unlink()
    return main([f"resume={folder}"])


def repeated(folder: Path) -> int:
    """The same command, which finds an interrupted run."""
    (folder / "results.json").unlink()
    return main([*SMALL, "method=fusion", f"paths.run={folder}"])


def taught(folder: Path) -> int:
    return main([*SMALL, "method=distillation", f"method.teacher.run={folder}", "paths.run=student"])


OFTEN: dict[str, Callable[[Path], int]] = {"evaluate": evaluated, "resume": resumed}
COMMANDS = OFTEN | {"the same command": repeated, "teacher": taught}


def refused(folder: Path, results: bytes, commands: dict[str, Callable[[Path], int]], capfd: Capture) -> None:
    before = {path.name for path in folder.rglob("*")} - {"results.json"}
    for name, command in commands.items():
        assert command(folder) == 2, name
        told = capfd.readouterr().err
        assert any(words in told for words in ("config.yaml: ", "here may stand", "another configuration")), (
            told
        )
        assert "Traceback" not in told
        # nor was anything built that writes
        assert {path.name for path in folder.rglob("*")} - {"results.json"} == before
        (folder / "results.json").write_bytes(results)
    assert not Path("trap").exists()
    assert not Path("student/config.yaml").exists()


@pytest.mark.parametrize("case", CHANGES)
def test_nothing_runs(case: str, foreign: Path, capfd: Capture) -> None:
    change(foreign, case)
    refused(foreign, (foreign / "results.json").read_bytes(), OFTEN, capfd)
    with pytest.raises(UserError):
        open_trained(foreign)
    assert not Path("trap").exists()


@pytest.mark.parametrize("case", ["schedule", "encoder", "argument", "class of no role", "reference"])
def test_nothing_runs_of_an_interrupted_run_nor_of_a_teacher(
    case: str, foreign: Path, capfd: Capture
) -> None:
    change(foreign, case)
    refused(foreign, (foreign / "results.json").read_bytes(), COMMANDS, capfd)
    assert report.main([str(foreign)]) == 0


def test_as_it_was_it_is_evaluated(foreign: Path) -> None:
    assert evaluated(foreign) == 0


def test_a_link_out_of_the_folder(foreign: Path, tmp_path: Path, capfd: Capture) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (foreign / "log.txt").unlink()
    (foreign / "log.txt").symlink_to(outside)
    for command in (*COMMANDS.values(), lambda folder: evaluate.main([f"run={folder}", "verify=true"])):
        results = (foreign / "results.json").read_bytes()
        assert command(foreign) == 2
        assert "out of the run's folder" in capfd.readouterr().err
        (foreign / "results.json").write_bytes(results)
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("text", ["", "seed: 0\n"])
def test_the_same_command_mends_config_yaml(text: str, foreign: Path, capfd: Capture) -> None:
    (foreign / "config.yaml").write_text(text)
    assert resumed(foreign) == 2
    assert "config.yaml is damaged: " in capfd.readouterr().err
    assert main([*SMALL, "method=fusion", f"paths.run={foreign}"]) == 0
    assert "config.yaml is damaged: it " in capfd.readouterr().out
    assert resumed(foreign) == 0


@pytest.mark.parametrize("case", ELSEWHERE)
def test_nothing_is_written_elsewhere(case: str, foreign: Path, capfd: Capture) -> None:
    change_to(foreign, ELSEWHERE[case])
    before = sorted(foreign.parent.rglob("*"))
    (foreign / "results.json").unlink()
    assert main([f"resume={foreign}"]) == 2
    assert "is a place outside the run's folder" in capfd.readouterr().err
    assert sorted(foreign.parent.rglob("*")) == [path for path in before if path.name != "results.json"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data.batch_size=0", "data.batch_size=0 is below 1"),
        ("data.batch_size=many", "data.batch_size=many is not a whole number"),
        ("data.workers=-1", "data.workers=-1 is below 0"),
        ("combinations=x", "combinations=x is not known; choose all"),
        ("combinations=2", "combinations=2 is below 3"),
    ],
)
def test_values_for_an_evaluation_are_checked(text: str, words: str, foreign: Path, capfd: Capture) -> None:
    assert evaluate.main([f"run={foreign}", text]) == 2
    assert words in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [("keep=foo", "keep=foo is not known"), ("data.workers=-1", "data.workers=-1 is below 0")],
)
def test_values_for_resuming_are_checked(text: str, words: str, foreign: Path, capfd: Capture) -> None:
    assert main([f"resume={foreign}", text]) == 2
    assert words in capfd.readouterr().err


def test_a_place_that_the_command_line_names(foreign: Path, tmp_path: Path) -> None:
    change_to(
        foreign, {"callbacks": {"x": {"_target_": CHECKPOINTS, "dirpath": str(tmp_path / "mine" / "x")}}}
    )
    (foreign / "results.json").unlink()
    shutil.rmtree(foreign / "checkpoints")
    assert main([f"resume={foreign}", f"paths.outputs={tmp_path / 'mine'}"]) == 0
    assert list((tmp_path / "mine" / "x").glob("*.ckpt"))


def test_caches_and_downloads_are_this_machines(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMROBUST_CACHE", str(tmp_path / "cache"))
    given = {"data.cache": "elsewhere", "data.download": True, "data.root": "elsewhere"}
    config = OmegaConf.create(OmegaConf.to_container(load_run_config(foreign)))
    for key, value in given.items():
        OmegaConf.update(config, key, value, force_add=True)
    found = confined(config, foreign, trains=False)
    assert (found.data.cache, found.data.download) == (str(tmp_path / "cache"), False)
    assert confined(config, foreign, ["paths.cache=here"], trains=False).data.cache == "here"
    monkeypatch.setenv("MMROBUST_DATA", str(tmp_path))
    assert confined(config, foreign, trains=True).data.download
