"""The lists of triplets that CASIA-SURF comes with. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from mmrobust.data.files.folders import exists, picture
from mmrobust.data.files.lists import read_list
from mmrobust.errors import Problems

MODALITIES = ("rgb", "depth", "ir")
CLASSES = ("spoof", "live")
SOURCE = "the ChaLearn face anti-spoofing challenge of 2019, on request from its authors"
Triplets = dict[str, tuple[tuple[Path, ...], int]]  # {id: ((rgb, depth, ir), class)}


def as_on_disk(path: Path, folders: dict[str, set[str]]) -> Path:
    """The name without `_resized`, or with another ending of pictures, where only that exists."""
    found = picture(path, folders)
    shorter = picture(path.with_stem(path.stem.removesuffix("_resized")), folders)
    return shorter if not exists(found, folders) and exists(shorter, folders) else found


def read_triplets(root: Path, name: str, folders: dict[str, set[str]], problems: Problems) -> Triplets:
    """The triplets of a list by the name of their colour image. Adds to `problems`."""

    def parse(line: str) -> tuple[str, tuple[tuple[Path, ...], int]] | None:
        fields = [field.strip() for field in (line.split(",") if "," in line else line.split())]
        if not any(fields) or fields[0] == "rgb":
            return None
        rgb, depth, ir, label = fields
        paths = tuple(as_on_disk(root / path, folders) for path in (rgb, depth, ir))
        return rgb, (paths, ("0", "1").index(label))

    return read_list(
        root / name,
        parse,
        problems,
        lacking=f"it belongs to {SOURCE}; or name another one: data.lists",
        expected="`rgb depth ir label` with label 1 (live) or 0 (spoof)",
        mend="take the list with labels (…_private_list), or mend them",
        samples="samples",
    )
