"""The examples of docs/extending.md, as they are printed, in a user's folder, against the installed wheel."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.wheel import ROOT, UV, build_wheel, call, quick_environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not UV.is_file(), reason="needs uv beside the interpreter, as `make setup` installs it"
    ),
]

TEXT = (ROOT / "docs/extending.md").read_text()
SECTIONS = dict(re.findall(r"^## (An? .*?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))

# What a section's last run leaves behind: a file of its folder, and what stands there.
LEFT = {
    "A method": ("results.json", '"method": "my_method"'),
    "An encoder": ("results.json", '"encoder": "my_encoder"'),
    "A fusion": ("results.json", '"fusion": "my_fusion"'),
    "A dataset": ("results.json", '"motion+body"'),
    "A metric": ("results.json", '"geometric_mean"'),
    "A callback": ("metrics.csv", "encoder_norm/fou"),
    "A noise": ("results.json", '"name": "dead"'),
}

ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def blocks(section: str, language: str) -> list[str]:
    """The contents of the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)


def write_files(section: str, folder: Path) -> None:
    """Each block of Python or YAML becomes the file that one of its first lines names."""
    for block in blocks(section, "python") + blocks(section, "yaml"):
        (name,) = re.findall(r"^# (\S+\.(?:py|yaml))$", block, re.MULTILINE)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)


def test_every_example_is_tested() -> None:
    assert set(SECTIONS) == set(LEFT)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel installed."""
    folder = tmp_path_factory.mktemp("installed")
    found = quick_environment(build_wheel(folder), folder / "env")
    where = call(
        found, "-c", "import mmrobust; print(mmrobust.__file__)", folder=folder, environment=ENVIRONMENT
    )
    assert Path(where).is_relative_to(folder / "env")
    return found


@pytest.mark.parametrize("section", LEFT)
def test_example(section: str, python: Path, tmp_path: Path) -> None:
    write_files(section, tmp_path)
    commands = [line for block in blocks(section, "bash") for line in block.splitlines()]
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "python"
        if "mmrobust.run" in arguments:
            arguments += ["trainer.max_epochs=1", "trainer.accelerator=cpu", "threads=1"]
        printed = call(python, *arguments, folder=tmp_path, environment=ENVIRONMENT)
        if "mmrobust.testing" in arguments:
            assert re.search(r"^[1-9]\d* checks hold, 0 do not$", printed, re.MULTILINE)
    name, content = LEFT[section]
    runs = sorted(tmp_path.glob(f"outputs/*/*/{name}"), key=lambda path: path.stat().st_mtime)
    assert len(runs) == sum("mmrobust.run" in command for command in commands)
    assert content in runs[-1].read_text()
