"""A small generated download in a dataset's official form."""

from __future__ import annotations

import importlib
from pathlib import Path

from mmrobust.errors import UserError
from mmrobust.files import expanded, replacing
from mmrobust.prepare.plan import MARKER, preparation


def generate(layout: str, out: Path) -> int:
    """Write it; returns the exit status. Raises: UserError: there is something already."""
    out = expanded(out).resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out={out} exists already; choose a folder that is empty or new")
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as part:
        make(layout, part)
    print(f"a generated {preparation(layout).TITLE}, as it is distributed: {out}")
    prepared = out.with_name(f"{out.name}_prepared")
    print(f"prepare it:  python -m mmrobust.prepare {layout} raw={out} out={prepared}")
    return 0


def make(layout: str, root: Path) -> None:
    """Below a folder, with a file that says that it is generated."""
    importlib.import_module(f"mmrobust.prepare.synthetic.{layout}").make(root)
    (root / MARKER).write_text(
        f"A small {preparation(layout).TITLE} that was generated (python -m mmrobust.prepare synthetic).\n"
    )
