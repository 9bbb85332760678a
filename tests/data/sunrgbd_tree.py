"""The prepared form of a small SUN RGB-D, written by hand: `prepare_sunrgbd(root)`."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import scipy.io


def prepare_sunrgbd(root: Path) -> None:
    """Adds label.npy and lists, takes the toolbox away."""
    toolbox = root / "SUNRGBDtoolbox"
    meta = scipy.io.loadmat(toolbox / "Metadata/SUNRGBDMeta.mat", squeeze_me=True)["SUNRGBDMeta"]
    with h5py.File(toolbox / "Metadata/SUNRGBD2Dseg.mat") as file:
        for row, path in enumerate(meta["rgbpath"]):
            folder = root / "SUNRGBD" / path.split("SUNRGBD/")[1].split("//image")[0]
            (folder / "label").mkdir()
            label = file[file["SUNRGBD2Dseg/seglabel"][row, 0]][()].T
            np.save(folder / "label/label.npy", label.astype(np.uint8))
    splits = scipy.io.loadmat(toolbox / "traintestSUNRGBD/allsplit.mat", squeeze_me=True)
    for split in ("train", "test"):
        names = [path.split("SUNRGBD/")[1].strip("/") for path in splits[f"all{split}"]]
        files = [next((root / "SUNRGBD" / name / "image").iterdir()).name for name in names]
        rows = [f"{name}/image/{file}" for name, file in zip(names, files, strict=True)]
        (root / f"{split}_rgb.txt").write_text("\n".join(rows))
    for path in sorted(toolbox.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    toolbox.rmdir()
