"""MATLAB's files (.mat, version 5 to 7.2) to arrays."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from mmrobust.errors import UserError


def read_mat(path: Path, *names: str) -> list[np.ndarray]:
    """Variables of a file, in the order asked for.

    Raises:
        UserError: the file is missing, cut short or no .mat file, or lacks a variable.
    """
    from scipy.io import loadmat, matlab

    try:
        found = loadmat(path, variable_names=names)
        others = [] if all(name in found for name in names) else [name for name, *_ in matlab.whosmat(path)]
    except (
        *(OSError, ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, NotImplementedError),
        *(zlib.error, struct.error, matlab.MatReadError),
    ) as error:
        size = f"{path.stat().st_size} bytes" if path.is_file() else "no such file"
        why = str(error).strip().splitlines()[:1]
        raise UserError(
            f"{path} ({size}) cannot be read as a MATLAB file: {why[0] if why else type(error).__name__}; get it again"
        ) from error
    if others:
        lacking = ", ".join(name for name in names if name not in found)
        raise UserError(f"{path} has no variable {lacking}, only {', '.join(others)}; get it again")
    if absent := [name for name in names if name not in found]:
        raise UserError(f"{path} holds no variables; {', '.join(absent)} expected; get it again")
    return [np.asarray(found[name]) for name in names]


def read_variables(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Some variables of a MATLAB file of versions 4 to 7, squeezed.

    Raises:
        UserError: it cannot be read, or one of them is not there.
    """
    try:
        found = scipy.io.loadmat(path, variable_names=list(keys), squeeze_me=True, struct_as_record=False)
    except Exception as error:  # whatever a damaged file makes of the parser
        raise UserError(
            f"{path} cannot be read as a MATLAB file ({' '.join(str(error).split())}); get it again"
        ) from error
    for key in keys:
        if key not in found:
            raise UserError(f"{path} has no variable {key}; get the file again")
    return found
