"""The wheel, installed in an environment of its own, runs from any folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.wheel import ROOT, UV, build_wheel, call


@pytest.mark.slow
@pytest.mark.skipif(not UV.is_file(), reason="needs uv beside the interpreter, as `make setup` installs it")
def test_an_installed_wheel_runs_anywhere(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    call(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", folder=tmp_path)
    python = tmp_path / "env/bin/python"
    install = (UV, "pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "constraints.txt")
    call(*install, wheel, folder=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # the default, whose data comes with the wheel
    printed = call(
        python, "-m", "mmrobust.run", "trainer.max_epochs=1", "trainer.accelerator=cpu", folder=elsewhere
    )
    assert "fou+kar+mor" in printed
    assert list(elsewhere.glob("outputs/dmrnet_digits/*/results.json"))
    (attribution,) = (tmp_path / "env/lib").glob("python*/site-packages/mmrobust/data/embedded/README.md")
    assert "CC BY 4.0" in attribution.read_text()
