"""The samples that are to be predicted: rows of a CSV, files by modality, or folders of them. Imports no torch."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmrobust.data.table.csv_file import OWN, open_table
from mmrobust.errors import UserError
from mmrobust.predict.request import Request


@dataclass(frozen=True)
class Sample:
    """One of them.

    Args:
        id: its name.
        inputs: by modality the file, or the sentence; without those that are missing.
        problem: why it cannot be predicted, if that is known already.
    """

    id: str
    inputs: Mapping[str, Path | str]
    problem: str = ""


def samples_of(request: Request, clips: Collection[str] = ()) -> Iterator[Sample]:
    """What a request asks for, in a fixed order, one after the other.

    Args:
        request: the command line's.
        clips: modalities of which one input is a folder of frames.

    Raises:
        UserError: a table or a folder that cannot be used at all.
    """
    if request.manifest is not None:
        return in_table(request, request.manifest)
    folders = {m: Path(v) for m, v in request.inputs.items() if m not in request.described.texts}
    several = {m: p for m, p in folders.items() if p.is_dir() and (m not in clips or has_folders(p))}
    if not several:
        files = {m: folders.get(m, value) for m, value in request.inputs.items()}
        first = next((path.stem for path in folders.values()), "sample")
        return iter([Sample(first, files)])
    if others := [m for m in request.inputs if m not in several]:
        raise UserError(
            f"{', '.join(several)} is a folder of samples, and {', '.join(others)} is not; give a folder for each modality"
        )
    return in_folders(several)


def has_folders(path: Path) -> bool:
    return any(child.is_dir() for child in path.iterdir())


def in_table(request: Request, table: Path) -> Iterator[Sample]:
    """The rows of a CSV. Raises: UserError: it cannot be read, or has no column of a modality."""
    header, lines = open_table(table)
    known = request.described.modalities
    columns = [m for m in known if m in header]
    if not columns:
        close = [c for name in header for c in difflib.get_close_matches(name, known, n=1)]
        hint = f"; is it {close[0]}?" if close else ""
        raise UserError(
            f"data.manifest={table} has no column of this run's modalities ({', '.join(known)}), but "
            f"{', '.join(header)}{hint}"
        )
    if ignored := [name for name in header if name not in (*known, *OWN)]:
        print(f"columns that are no modality of this run: {', '.join(ignored)}", file=sys.stderr)
    root = request.root or table.parent
    for line, cells in lines:
        if len(cells) != len(header):
            yield Sample(f"line {line}", {}, f"it has {len(cells)} cells for {len(header)} columns")
            continue
        row = dict(zip(header, cells, strict=True))
        inputs: dict[str, Path | str] = {
            m: row[m] if m in request.described.texts else found(root, row[m]) for m in columns if row[m]
        }
        yield Sample(row.get("id") or f"line {line}", inputs)


def found(root: Path, cell: str) -> Path:
    """The file that a cell names; backslashes between folders are those of Windows."""
    path = root / cell
    if "\\" in cell and not path.exists():
        path = root / cell.replace("\\", "/")
    return path


def in_folders(folders: Mapping[str, Path]) -> Iterator[Sample]:
    """One sample for every name, without its ending, that occurs in one of the folders.

    Raises:
        UserError: a folder is empty, or holds two files of one name.
    """
    names: dict[str, dict[str, Path]] = {}
    for modality, folder in folders.items():
        files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        if not files:
            raise UserError(f"{modality}={folder} is empty; give a folder that holds files")
        for path in files:
            of_name = names.setdefault(path.name if path.is_dir() else path.stem, {})
            if modality in of_name:
                raise UserError(
                    f"{modality}={folder} holds {of_name[modality].name} and {path.name}, which would be one sample; rename one"
                )
            of_name[modality] = path
    for name in sorted(names):
        yield Sample(name, names[name])
