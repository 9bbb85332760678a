"""The wheel, installed in an environment of its own, runs from any folder."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.wheel import ROOT, UV, build_wheel, call, quick_environment


def whole_environment(wheel: Path, folder: Path) -> Path:
    """The interpreter of an environment with the wheel and what it says that it needs, and no more."""
    call(UV, "venv", "--quiet", "--python", sys.executable, folder, folder=wheel.parent)
    python = folder / "bin/python"
    install = (UV, "pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "constraints.txt")
    call(*install, wheel, folder=wheel.parent)
    return python


@pytest.mark.skipif(not UV.is_file(), reason="needs uv beside the interpreter, as `make setup` installs it")
@pytest.mark.parametrize(
    "environment",
    [
        pytest.param(quick_environment, marks=pytest.mark.slow, id="quick"),
        pytest.param(whole_environment, marks=pytest.mark.long, id="whole"),
    ],
)
def test_an_installed_wheel_runs_anywhere(environment: Callable[[Path, Path], Path], tmp_path: Path) -> None:
    python = environment(build_wheel(tmp_path), tmp_path / "env")
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


def test_what_is_imported_is_declared() -> None:
    """Every package of others that a line of ours imports is a dependency, or of an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [texts for extra, texts in project["optional-dependencies"].items() if extra != "dev"]
    declared = [text for texts in (project["dependencies"], *extras) for text in texts]
    names = {re.split(r"[^\w-]", text)[0].lower() for text in declared}
    imported = set()
    for path in (ROOT / "mmrobust").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    of = (
        packages_distributions()
    )  # module -> what brings it; a plugin that is not installed counts as one of its own
    others = imported - {"mmrobust", *sys.stdlib_module_names}
    undeclared = {x: of[x] for x in others & of.keys() if not {name.lower() for name in of[x]} & names}
    assert undeclared == {}
