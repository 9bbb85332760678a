"""How the files of one column of a user's table become inputs of one kind, size and scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from mmrobust.data.files import images
from mmrobust.data.files.arrays import channels_last, read_array, shape_of, type_of
from mmrobust.data.files.audio import Spectrogram, wave_of
from mmrobust.data.kinds import encode_text
from mmrobust.data.reader import Reader, colours_of, numbers_of, text_of
from mmrobust.data.spec import Modality
from mmrobust.errors import UserError


@dataclass(frozen=True)
class Column:
    """What is known of a column; `read`, `prepare` and `finish` lead from a file, or from a sentence, to a tensor of `shape`.

    Args:
        kind, shape: as of `Modality`.
        mean, std: of each channel (of each number of a vector), or one for all; pixels of 8 bits lie in [0, 1].
        unit: metres for which 1 in a file of depth stands.
        bits: of a number in a file of depth; 0: those of floats, or any.
        sample_rate, n_fft, hop, seconds: of sounds, see `Spectrogram`.
    """

    kind: str
    shape: tuple[int, ...]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    unit: float = 1.0
    bits: int = 0
    sample_rate: int = 0
    n_fft: int = 0
    hop: int = 0
    seconds: float = 0.0

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Column:
        lists = {key: tuple(plain[key]) for key in ("shape", "mean", "std")}
        return cls(**{**plain, **lists})

    def to_dict(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @property
    def modality(self) -> Modality:
        return Modality(self.kind, self.shape)

    @property
    def is_map(self) -> bool:
        """Whether it has a height and a width that are ours to choose."""
        return self.kind in ("image", "depth")

    @property
    def spectrogram(self) -> Spectrogram:
        return Spectrogram(self.sample_rate, self.seconds, self.n_fft, self.hop, standardise=False)

    @property
    def reader(self) -> Reader:
        """Of one file or sentence, or of what a program holds."""
        return Reader(self.modality, self.read, self._held, lambda x: self.finish(self.prepare(x)))

    def _held(self, raw: Any) -> Any:
        """What is in memory as `read` gives it."""
        if self.kind == "text":
            return text_of(raw)
        if self.kind == "spectrogram":
            return np.resize(wave_of(raw, self.sample_rate), self.spectrogram.samples)
        coloured = isinstance(raw, Image) and self.kind == "image" and self.shape[0] == 3
        return self.accept(colours_of(raw) if coloured else numbers_of(raw), "what was given")

    def read(self, path: Path | str) -> Any:
        """Text as it stands in the table; image (H, W, C), uint8 as a rule; depth (H, W) float32 in metres, 0 where unknown; spectrogram: waveform
        (T,); video (T, H, W, 3) uint8 or (C, T, H, W); sequence (C, T); vector (D,).

        Raises:
            UserError: the file cannot be read, or is not what the column holds.
        """
        if isinstance(path, str):
            return path
        if self.kind == "spectrogram":
            return self.spectrogram.read(path)
        if type_of(path) == "arrays" or not self.is_map:
            return self.accept(read_array(path), str(path))
        return self.accept(
            images.read_map(path) if self.kind == "depth" else images.read_image(path), str(path)
        )

    def accept(self, x: np.ndarray, where: str) -> np.ndarray:
        """Numbers as a file holds them, checked: what `read` gives of the file.

        Args:
            x: of an image (H, W, C) or (C, H, W), of depth (H, W), and so on, see `arrays.shape_of`.
            where: they come from, for messages.

        Raises:
            UserError: they are not what the column holds.
        """
        if self.kind == "depth":
            x = channels_last(x)[..., 0]
            if self.bits and bits_of(x.dtype) != self.bits:
                raise UserError(
                    f"{where} has {x.dtype} numbers, where {self.bits} bits were expected, as the first file has: its unit "
                    "would be another; convert it, or give such files a column of their own"
                )
            x = x.astype(np.float32)
            return np.where(np.isfinite(x) & (x > 0), x, 0) * np.float32(self.unit)
        if self.kind == "image":
            x = channels_last(x)
            found, expected = x.shape[-1:], self.shape[:1]
        else:
            x = x.ravel() if self.kind == "vector" else x
            found, expected = shape_of(self.kind, x.shape, x.dtype), self.shape
        if found != expected:
            what = "channels" if self.kind == "image" else "shape"
            raise UserError(
                f"{where} has {what} {found}, where {expected} was expected; mend or leave it out"
            )
        x = x if x.dtype == np.uint8 and self.kind in ("image", "video") else x.astype(np.float32)
        if x.dtype != np.uint8 and not np.isfinite(x).all():
            raise UserError(f"{where} holds NaN or infinity; mend it or leave it out")
        return x

    def prepare(self, x: Any) -> Any:
        """What noise acts on: maps in their final size, sounds as magnitudes |STFT| (F, T)."""
        if self.kind == "spectrogram":
            return self.spectrogram.magnitude(x)
        height, width = self.shape[-2:] if self.is_map else (0, 0)
        return images.scaled_to(x, (height, width), nearest=self.kind == "depth") if self.is_map else x

    def finish(self, x: Any) -> Tensor:
        """Text as code points; all else normalised; depth is 0, its mean, where unknown."""
        if self.kind == "text":
            return encode_text(x, self.shape[0])
        if self.kind == "spectrogram":
            return self._normalised(self.spectrogram.finish(x))
        tensor = torch.from_numpy(x).float()
        if x.dtype == np.uint8:
            tensor = tensor / 255
        if self.kind == "depth":
            return torch.where(tensor > 0, self._normalised(tensor), 0.0)[None]
        last = self.kind == "image" or (self.kind == "video" and tensor.shape != self.shape)
        return self._normalised(tensor.movedim(-1, 0) if last else tensor)

    def _normalised(self, x: Tensor) -> Tensor:
        mean, std = (torch.tensor(v).reshape(-1, *[1] * (x.dim() - 1)) for v in (self.mean, self.std))
        return (x - mean) / std if self.kind != "depth" else (x - self.mean[0]) / self.std[0]

    def with_statistics(self, files: Iterable[Path], mean: Any, std: Any) -> Column:
        """With mean and standard deviation of some files where they are not given; std is 1 where nothing varies."""
        found_mean, found_std = self.mean, self.std
        if mean is None or std is None:
            plain = replace(self, mean=(0.0,), std=(1.0,))
            sums: Any = 0
            for file in files:
                x = plain.finish(plain.prepare(plain.read(file))).double()
                if not x.isfinite().all():
                    raise UserError(f"{file} gives NaN or infinity as {self.kind}; mend it or leave it out")
                x = x[x != 0][None] if self.kind == "depth" else x.reshape(len(x), -1)
                sums = sums + torch.stack([torch.full((len(x),), x.shape[1]), x.sum(1), x.square().sum(1)])
            count, total, squares = sums
            average = total / count.clamp(min=1)
            spread = (squares / count.clamp(min=1) - average.square()).clamp(min=0).sqrt()
            spread = torch.where(spread > 1e-6 * (1 + average.abs()), spread, 1.0)
            found_mean = tuple(float(f"{v:.6g}") for v in average.tolist())
            found_std = tuple(float(f"{v:.6g}") for v in spread.tolist())
        return replace(
            self,
            mean=found_mean if mean is None else numbers(mean),
            std=found_std if std is None else numbers(std),
        )

    def problems(self, key: str) -> list[str]:
        """What is wrong with the keys that were set."""
        channels = len(self.shape) and (1 if self.kind == "depth" else self.shape[0])
        found = [
            f"{key}.{name} has {len(v)} numbers; give 1 or {channels}"
            for name, v in (("mean", self.mean), ("std", self.std))
            if len(v) not in (1, channels)
        ]
        return found + ([f"{key}.std={list(self.std)} must be above 0"] if min(self.std) <= 0 else [])


def bits_of(dtype: np.dtype) -> int:
    """Of whole numbers; 0 for others."""
    return 8 * dtype.itemsize if dtype.kind in "ui" else 0


def numbers(value: Any) -> tuple[float, ...]:
    """One number or a list of them."""
    return tuple(map(float, value)) if isinstance(value, list | tuple) else (float(value),)
