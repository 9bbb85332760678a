"""The wheel, installed in an environment of its own, runs from any folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")


@pytest.mark.slow
@pytest.mark.skipif(not UV.is_file(), reason="needs uv beside the interpreter, as `make setup` installs it")
def test_an_installed_wheel_runs_anywhere(tmp_path: Path) -> None:
    def call(*command: str | Path, folder: Path = tmp_path) -> str:
        done = subprocess.run(
            [str(c) for c in command], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    source = tmp_path / "source"
    names = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff")
    source.mkdir()
    for name in names:
        shutil.copy(ROOT / name, source / name)
    for name in ("conf", "mmrobust"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    call(UV, "build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", source)
    call(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env")
    python = tmp_path / "env/bin/python"
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    call(UV, "pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "constraints.txt", wheel)
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
