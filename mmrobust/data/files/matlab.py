"""MATLAB's files (.mat) to arrays."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import scipy.sparse

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


def read_matrices(path: Path) -> dict[str, list[np.ndarray]]:
    """All numeric variables of a file of any version, in natural order (x2 before x10): each a list of matrices of
    float64, which has one entry but for a cell array. Sparse matrices are filled in.

    Raises:
        UserError: it cannot be read.
    """
    try:
        found = _from_hdf5(path) if h5py.is_hdf5(path) else _from_matlab(path)
    except Exception as error:  # whatever a damaged file makes of the parser
        raise UserError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as a MATLAB file ({' '.join(str(error).split())}); get "
            "it again"
        ) from error
    numbered = {name: [int(x) for x in re.findall(r"\d+", name)] for name in found}
    return {name: found[name] for name in sorted(found, key=lambda n: (numbered[n], n)) if found[name]}


def _from_matlab(path: Path) -> dict[str, list[np.ndarray]]:
    found = {}
    for name, value in scipy.io.loadmat(path).items():
        if not name.startswith("__"):
            cells = value.ravel() if getattr(value, "dtype", None) == np.object_ else [value]
            found[name] = [x for cell in cells if (x := _matrix(cell)) is not None]
    return found


def _from_hdf5(path: Path) -> dict[str, list[np.ndarray]]:
    """Version 7.3: MATLAB's first axis comes last, cells are references, sparse matrices are groups."""

    def matrix(node: Any) -> np.ndarray | None:
        if isinstance(node, h5py.Group):
            if "MATLAB_sparse" not in node.attrs:
                return None
            starts = node["jc"][()].astype(np.int64)
            values, rows = (node[k][()] if k in node else np.zeros(0) for k in ("data", "ir"))
            shape = (int(node.attrs["MATLAB_sparse"]), len(starts) - 1)
            return _matrix(scipy.sparse.csc_matrix((values, rows.astype(np.int64), starts), shape=shape))
        is_text = node.attrs.get("MATLAB_class") in (b"char", "char")
        return None if is_text or "MATLAB_empty" in node.attrs else _matrix(node[()].T)

    with h5py.File(path) as file:
        found = {}
        for name, node in file.items():
            if not name.startswith("#"):
                cell = isinstance(node, h5py.Dataset) and h5py.check_ref_dtype(node.dtype) is not None
                nodes = [file[reference] for reference in node[()].T.ravel(order="F")] if cell else [node]
                found[name] = [x for part in nodes if (x := matrix(part)) is not None]
        return found


def _matrix(value: Any) -> np.ndarray | None:
    """Numbers in two dimensions as float64; None if it is anything else, or empty."""
    if scipy.sparse.issparse(value):
        value = value.toarray()
    if (
        not isinstance(value, np.ndarray)
        or value.dtype.kind not in "fiub"
        or value.ndim != 2
        or not value.size
    ):
        return None
    return value.astype(np.float64)
