"""The tree of a test module's dataset, for modules that say `NAME`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.data.trees import plant


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that no test changes."""
    root = tmp_path_factory.mktemp(request.module.NAME)
    plant(request.module.NAME, root)
    return root


@pytest.fixture
def tree(shared: Path, tmp_path: Path) -> Path:
    """A tree that a test may damage."""
    return Path(shutil.copytree(shared, tmp_path / shared.name))
