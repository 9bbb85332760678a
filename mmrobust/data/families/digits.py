"""The files of MNIST and of the Free Spoken Digit Dataset (FSDD): find them, read them, fetch them."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import numpy as np

from mmrobust.data.files.audio import read_audio
from mmrobust.errors import UserError
from mmrobust.files import replacing

log = logging.getLogger(__name__)

RATE = 8000  # Hz, of every recording
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
FSDD = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip"
TARGETS = {  # part of the dataset -> where a download puts it
    **{
        f"{half}-{kind}": f"MNIST/raw/{half}-{kind}.gz"
        for half in ("train", "t10k")
        for kind in (IMAGES, LABELS)
    },
    "recordings": "free-spoken-digit-dataset/recordings",
}


@dataclass(frozen=True)
class Pool:
    """All images or all recordings of a split."""

    data: np.ndarray  # (N, 28, 28) uint8, or (N, T) float32 of unit power
    targets: np.ndarray  # (N,) digits
    names: np.ndarray  # (N,)

    def __getitem__(self, rows: np.ndarray | slice) -> Pool:
        return Pool(self.data[rows], self.targets[rows], self.names[rows])


def find(root: Path, part: str) -> Path | None:
    """A part of the dataset: where a download puts it, or right below the root or one of its folders."""
    patterns = (f"{folder}/{part}{end}" for folder in ("MNIST/raw", ".", "*") for end in ("", ".gz"))
    found = (path for pattern in patterns for path in sorted(root.glob(pattern)))
    return next((path for path in found if path.is_file() or any(path.glob("*.wav"))), None)


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Read an idx file of bytes. The last byte of its magic number is the number of dimensions."""
    advice = "delete it and let data.download=true fetch it again"
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}; {advice}") from error
    start = 4 + 4 * (magic & 255)
    found, *shape = np.frombuffer(raw[:start].ljust(start, b"\0"), dtype=">i4").tolist()
    if found != magic:
        raise UserError(f"{path} begins with the number {found} instead of MNIST's {magic}; {advice}")
    if len(raw) - start != np.prod(shape):
        raise UserError(
            f"{path} holds {len(raw) - start} bytes of data, but its head announces {shape}; {advice}"
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


def read_images(root: Path, half: str) -> Pool:
    """MNIST's half "train" or "t10k"."""
    images, labels = (
        read_idx(path, m) for k, m in ((IMAGES, 2051), (LABELS, 2049)) if (path := find(root, f"{half}-{k}"))
    )
    if len(images) != len(labels):
        raise UserError(
            f"{root} has {len(images)} images but {len(labels)} labels of MNIST's {half}; get both again"
        )
    return Pool(images, labels.astype(int), np.array([f"{half}_{i:05d}" for i in range(len(images))]))


def read_recordings(
    root: Path, samples: int, damaged: list[str] | None = None
) -> tuple[Pool, np.ndarray, np.ndarray]:
    """All recordings, of unit power and centred in `samples`; their speakers and their numbers, (N,) each.

    One that cannot be read is an error, unless there is a list `damaged`: then its name is added there.
    """
    paths = sorted((find(root, "recordings") or root).glob("*.wav"))
    names, sounds = [], []
    for path in paths:
        if name := re.fullmatch(r"(\d)_(.+)_(\d+)\.wav", path.name):
            try:
                sounds.append(read_audio(path, RATE))
                names.append(name)
            except UserError as error:
                if damaged is None:
                    raise UserError(
                        f"{error}, or leave out such recordings with data.corrupt=skip"
                    ) from error
                log.warning("data.corrupt=skip leaves out a recording: %s", error)
                damaged.append(path.stem)
    waves = np.zeros((len(names), samples), dtype=np.float32)
    for row, wave in zip(waves, sounds, strict=True):
        row[:] = centred(wave, samples)
    digits, speakers, numbers = (np.array([name[i] for name in names]) for i in (1, 2, 3))
    pool = Pool(waves, digits.astype(int), np.array([name[0].removesuffix(".wav") for name in names]))
    return pool, speakers, numbers.astype(int)


def centred(wave: np.ndarray, samples: int) -> np.ndarray:
    """A recording (T,) of unit power in the middle of silence, or its own middle: (samples,) float32."""
    wave = wave[max(len(wave) - samples, 0) // 2 :][:samples]
    start, row = (samples - len(wave)) // 2, np.zeros(samples, dtype=np.float32)
    row[start : start + len(wave)] = wave / max(float(np.sqrt(np.mean(wave**2))), 1e-6)
    return row


def ensure(root: Path, download: bool) -> None:
    """Download what is missing.

    Raises:
        UserError: it cannot be had; says what to fetch by hand and where to put it.
    """
    missing = [part for part in TARGETS if find(root, part) is None]
    if not missing:
        return
    from torchvision.datasets import MNIST  # knows mirrors and checksums; takes a second to import

    urls = {part: [f"{mirror}{part}.gz" for mirror in MNIST.mirrors] for part in TARGETS} | {
        "recordings": [FSDD]
    }
    try:
        if not download:
            raise OSError("data.download is false")
        for part in missing:
            fetch(urls[part], root / TARGETS[part], dict(MNIST.resources).get(f"{part}.gz"))
    except (OSError, HTTPException, zipfile.BadZipFile) as error:
        todo = "".join(f"\n  {urls[part][0]} -> {root / TARGETS[part]}" for part in missing)
        raise UserError(
            f"{root} lacks {', '.join(missing)}, and they could not be downloaded: {error}. On a machine that is "
            f"online get (of the zip file, the folder recordings){todo}\nor set data.root to a folder that has them"
        ) from error


def fetch(urls: Sequence[str], target: Path, md5: str | None) -> None:
    """Download a file, or from a zip file the folder recordings; `target` appears whole or not at all."""
    for url in urls:
        log.info("downloading %s", url)
        try:
            content = urlopen(url, timeout=10).read()
            if md5 not in (None, hashlib.md5(content).hexdigest()):
                raise OSError(f"{url} sent {len(content)} bytes whose md5 is not {md5}")
            break
        except (OSError, HTTPException):
            if url == urls[-1]:
                raise
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as part:
        if target.name == "recordings":
            part.mkdir()
            archive = zipfile.ZipFile(io.BytesIO(content))
            for name in archive.namelist():
                if "/recordings/" in name and name.endswith(".wav"):
                    (part / Path(name).name).write_bytes(archive.read(name))
        else:
            part.write_bytes(content)
