"""Whose code may run: what the command line allows, and no file. Imports no torch."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.errors import HydraException

from mmrobust.config.overrides import key_of, parse

ALLOW = "MMROBUST_ALLOW"  # of a command for the processes that it starts


def trusted() -> tuple[str, ...]:
    """Packages whose classes may be built beside those that a role names."""
    return tuple(name for name in os.environ.get(ALLOW, "").split(",") if name)


def allowed_by(argv: Sequence[str]) -> tuple[str, ...]:
    """What `allow=[...]` says on a command line; nothing if it cannot be read, which is told elsewhere."""
    names: list[str] = []
    for text in argv:
        if key_of(text) == "allow":
            try:
                value: Any = parse(text).value()
            except HydraException:
                continue
            names += [str(name) for name in (value if isinstance(value, list) else [value])]
    return tuple(names)


@contextmanager
def trusting(names: Sequence[str]) -> Iterator[None]:
    """Within, these packages are allowed, and no others; in child processes, too."""
    before = os.environ.get(ALLOW)
    os.environ[ALLOW] = ",".join(names)
    try:
        yield
    finally:
        if before is None:
            del os.environ[ALLOW]
        else:
            os.environ[ALLOW] = before


def resume_command(folder: Path) -> str:
    """The command that goes on with a run, as it is to be typed."""
    allow = [f"allow=[{','.join(trusted())}]"] if trusted() else []
    return shlex.join(["python", "-m", "mmrobust.run", f"resume={folder}", *allow])
