"""The wheel as a user gets it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")


def call(*command: str | Path, folder: Path, environment: dict[str, str] | None = None) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """The wheel, built in a folder from a copy of the sources."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"):
        shutil.copy(ROOT / name, source / name)
    for name in ("conf", "mmrobust"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    call(UV, "build", "--quiet", "--wheel", "--out-dir", folder / "dist", source, folder=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def quick_environment(wheel: Path, folder: Path) -> Path:
    """The interpreter of an environment with the wheel, which finds everything else where these tests do."""
    call(UV, "venv", "--quiet", "--python", sys.executable, folder, folder=wheel.parent)
    python = folder / "bin/python"
    call(UV, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel, folder=wheel.parent)
    (packages,) = (folder / "lib").glob("python3*/site-packages")
    # a folder named in a .pth has its own .pth not read: a checkout installed there is not found
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python
