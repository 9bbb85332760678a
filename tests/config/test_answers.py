"""Options anywhere on the command line, and what --cfg answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrobust.config.answers import read_arguments
from mmrobust.errors import UserError
from mmrobust.run import main


def test_options_anywhere() -> None:
    given = ["method=late", "--config-dir", "my conf", "data=synthetic", "-m", "seed=0,1"]
    arguments = read_arguments(given)
    assert arguments.overrides == ["method=late", "data=synthetic", "seed=0,1"]
    assert arguments.options == ["--config-dir", "my conf", "-m"]
    assert (arguments.config_dir, arguments.multirun) == ("my conf", True)


def test_an_unknown_option() -> None:
    with pytest.raises(UserError, match="unrecognized arguments: --confg job; see --help"):
        read_arguments(["method=late", "--confg", "job"])


def test_a_users_folder_between_overrides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer/mine.yaml").write_text("lr: 0.125\n")
    assert main(["method=late", "--config-dir", str(tmp_path), "optimizer=mine", "--cfg", "job"]) == 0
    printed = capsys.readouterr().out
    assert "lr: 0.125" in printed
    assert f"#   optimizer: {tmp_path}/optimizer/mine.yaml" in printed
    assert "conf/config.yaml" in printed.splitlines()[0]
    assert "conf/method/late.yaml" in printed


def test_cfg_of_a_sweep_is_its_first_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "method=late,dropout", "seed=3,4", "--cfg", "job"]) == 0
    printed = capsys.readouterr().out
    assert "\nseed: 3\n" in printed
    assert "mmrobust.methods.late.LateFusion" in printed
