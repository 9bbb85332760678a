"""MATLAB's files (.mat) to arrays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import scipy.sparse

from mmrobust.errors import UserError


def read_mat(path: Path, *names: str, squeeze: bool = False) -> list[Any]:
    """Variables of a file of versions 4 to 7, in the order asked for.

    Args:
        squeeze: without axes of length 1, structures as objects; else arrays as MATLAB has them.

    Raises:
        UserError: the file is missing, cut short or no .mat file, or lacks a variable.
    """
    with _unreadable(path):
        found = scipy.io.loadmat(path, variable_names=names, squeeze_me=squeeze, struct_as_record=not squeeze)
        absent = [name for name in names if name not in found]
        others = [name for name, *_ in scipy.io.whosmat(path)] if absent else []
    if absent and others:
        raise UserError(f"{path} has no variable {', '.join(absent)}, only {', '.join(others)}; get it again")
    if absent:
        raise UserError(f"{path} holds no variables; {', '.join(absent)} expected; get it again")
    return [found[name] for name in names]


def read_matrices(path: Path) -> dict[str, list[np.ndarray]]:
    """All numeric variables of a file of any version, in natural order (x2 before x10): each a list of matrices of
    float64, which has one entry but for a cell array. Sparse matrices are filled in.

    Raises:
        UserError: it cannot be read.
    """
    with _unreadable(path):
        found = _from_hdf5(path) if h5py.is_hdf5(path) else _from_matlab(path)
    numbered = {name: [int(x) for x in re.findall(r"\d+", name)] for name in found}
    return {name: found[name] for name in sorted(found, key=lambda n: (numbered[n], n)) if found[name]}


@contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    """Raises: UserError: whatever a damaged file makes of a parser within."""
    try:
        yield
    except Exception as error:
        size = f"{path.stat().st_size} bytes" if path.is_file() else "no such file"
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} ({size}) cannot be read as a MATLAB file: {why}; get it again") from error


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
