"""What a file may not say to Hydra, which builds classes and starts programs, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError

TRAP = "{_target_: mmrobust.training.children._wait, command: [touch, trap], folder: x, environment: {}}"

FILES = {
    "callback": (f"callbacks: {{x: {TRAP}}}", r"hydra\.callbacks\.x\._target_=.* is outside"),
    "callback of Python": ("callbacks: {x: {_target_: os.system, command: 'touch trap'}}", "no part of Python"),
    "launcher": ("launcher: {_target_: mmrobust.run.main}", r"hydra\.launcher\._target_=.* may stand a plugin of Hydra"),
    "sweeper": ("sweeper: {params: {x: {_target_: os.system}}}", r"hydra\.sweeper\.params\.x\._target_"),
    "logging": (
        "job_logging: {formatters: {x: {(): subprocess.Popen, args: [touch, trap]}}}",
        r"job_logging\.formatters\.x\.\(\)=subprocess\.Popen is nothing that a log is made of",
    ),
    "handler": ("hydra_logging: {handlers: {x: {class: os.system}}}", "handlers.x.class=os.system is nothing"),
    "stream": ("hydra_logging: {handlers: {x: {stream: 'ext://os.environ'}}}", "stream=ext://os.environ"),
    "environment": ("job: {env_set: {LD_PRELOAD: evil.so}}", r"hydra\.job\.env_set is set by a file"),
}  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_somebody_else(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, words = FILES[file]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(f"# @package _global_\nhydra:\n  {text}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        compose_config(["experiment=mine"], str(tmp_path))
    assert not (tmp_path / "trap").exists()


def test_the_command_line_may_set_variables() -> None:
    assert compose_config(["+hydra.job.env_set.NCCL_DEBUG=INFO", "hydra/job_logging=default"]).seed == 0
