"""Arrays in HDF5 files, MATLAB's axes."""

import os
import pickle

import h5py
import numpy as np
import pytest
import scipy.io

from mmrobust.data.files.folders import picture
from mmrobust.data.files.hdf5 import Tables
from mmrobust.data.files.matlab import read_mat
from mmrobust.errors import UserError


def test_tables(tmp_path):
    path = tmp_path / "t.mat"
    with h5py.File(path, "w") as file:
        file["maps"] = np.arange(2 * 3 * 4).reshape(2, 3, 4)
        cells = file.create_dataset("cells", (1, 2), dtype=h5py.special_dtype(ref=h5py.Reference))
        cells[0, 1] = file.create_dataset("#refs#/x", data=np.array([[ord(c)] for c in "den"], np.uint16)).ref
    tables = Tables(path)
    assert np.array_equal(tables.row("maps", 1), np.arange(12, 24).reshape(3, 4).T)
    assert tables.text("cells", 1) == "den"
    again = pickle.loads(pickle.dumps(tables))  # with the file open
    assert again.row("maps", 0).shape == (4, 3)
    with pytest.raises(UserError, match="has no array nothing"):
        tables.row("nothing", 0)
    with pytest.raises(UserError, match=r"cells\[0\] of .* cannot be read"):
        tables.text("cells", 0)


def test_damaged_tables_are_named(tmp_path):
    path = tmp_path / "t.mat"
    with h5py.File(path, "w") as file:
        file["maps"] = np.zeros((50, 100))
    whole = path.read_bytes()
    path.write_bytes(whole[:20000])
    with pytest.raises(UserError, match=rf"t\.mat is cut short: 20000 of {len(whole)} bytes; get it again"):
        Tables(path).array("maps")
    path.write_text("nothing of the kind")
    with pytest.raises(UserError, match="is no HDF5 file"):
        Tables(path).array("maps")
    with pytest.raises(UserError, match="cannot be read as a MATLAB file"):
        read_mat(path, "x")
    scipy.io.savemat(path, {"y": 1})
    with pytest.raises(UserError, match="has no variable x"):
        read_mat(path, "x")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match=r"cannot be read as a MATLAB file|holds no variables"):
        read_mat(path, "y")


def test_pictures_may_have_another_ending(tmp_path):
    for name in ("a.jpg", "b.PNG", "c.png", "c.jpg"):
        (tmp_path / name).touch()
    for asked, found in {
        "a.png": "a.jpg",
        "a.jpg": "a.jpg",
        "b.jpg": "b.PNG",
        "c.jpg": "c.jpg",
        "d.png": "d.png",
    }.items():
        assert picture(tmp_path / asked, {}) == tmp_path / found
