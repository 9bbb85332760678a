"""Sound files to waveforms to log spectrograms."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import soxr

from mmrobust.errors import UserError
from mmrobust.files import LFS

if TYPE_CHECKING:
    from torch import Tensor  # imported late elsewhere: files are read without it

MOST_SAMPLES_A_BYTE = 10_000  # of any format; the silence of FLAC has 5,000
LOUDEST = 10.0  # beyond it a waveform is in other units than [-1, 1]

_LOGGER = logging.getLogger(__name__)


def read_audio(path: Path | str, sample_rate: int) -> np.ndarray:
    """Read a sound file as mono float32 in [-1, 1], resampled to `sample_rate` (Hz), shape (T,).

    Raises:
        UserError: the file is missing, empty, cut short, a git-LFS pointer or not readable as sound; it holds NaN,
            infinity or numbers that are far from [-1, 1].
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"sound file {path} cannot be opened: {error.strerror}") from error
    if data.startswith(LFS):
        raise UserError(
            f"{path} is a git-LFS pointer, not a sound file; run `git lfs pull` in the dataset's folder"
        )
    if cut := _cut_short(data):
        raise UserError(f"{path} is cut short: {cut}; get the file again")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            promised, rate = sound.frames, sound.samplerate
            if promised > MOST_SAMPLES_A_BYTE * len(data):
                raise UserError(
                    f"{path} ({len(data)} bytes) claims to hold {promised} samples, which cannot be; get the file again"
                )
            wave = sound.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, MemoryError, ValueError) as error:
        reason = getattr(error, "error_string", "") or type(error).__name__
        reason = reason if data else "it is empty"
        raise UserError(
            f"{path} ({len(data)} bytes) cannot be read as sound: {reason.rstrip('.')}; get the file again"
        ) from error
    if not len(wave):
        raise UserError(f"{path} holds no samples; get the file again or take it out of the lists")
    if len(wave) < promised:
        raise UserError(f"{path} is cut short: {len(wave)} of {promised} samples; get the file again")
    return checked_wave(wave, rate, sample_rate, str(path))


def checked_wave(wave: np.ndarray, rate: int, sample_rate: int, where: str) -> np.ndarray:
    """A waveform (T, channels) float32 at `rate` (Hz) as mono at `sample_rate`, (T,).

    Args:
        where: it comes from, for messages.

    Raises:
        UserError: it holds NaN, infinity or numbers that are far from [-1, 1].
    """
    peak = float(np.abs(wave).max())
    if not np.isfinite(peak):
        raise UserError(f"{where} holds NaN or infinity; mend it or leave it out")
    if peak > LOUDEST:
        raise UserError(
            f"{where} reaches {peak:.4g}, where a sound lies in [-1, 1]; divide it by what its numbers count up to "
            "(16 bits: 32768), or save it as integers"
        )
    if peak > 1:
        _warn_of_clipping(where, peak)
    mono = wave.mean(1)
    return soxr.resample(mono, rate, sample_rate) if rate != sample_rate else mono


def wave_of(raw: Any, sample_rate: int) -> np.ndarray:
    """A sound that is held in memory as `read_audio` gives one that lies in a file.

    Args:
        raw: (T,) or (T, channels), floats in [-1, 1] or whole numbers as a file holds them, at `sample_rate`; or it and
            its rate (Hz).

    Raises:
        UserError: it is no sound.
    """
    paired = isinstance(raw, tuple) and len(raw) == 2 and isinstance(raw[1], int | float)
    numbers, rate = raw if paired else (raw, sample_rate)
    wave = np.asarray(numbers)
    if wave.dtype.kind not in "if" or wave.ndim not in (1, 2) or not wave.size or rate < 1:
        raise UserError(
            f"the sound is {type(numbers).__name__} {wave.shape} of {wave.dtype}; expected (T,) or (T, channels), or a "
            "pair of that and its sample rate"
        )
    scale = np.float32(1 if wave.dtype.kind == "f" else -float(np.iinfo(wave.dtype).min))
    wave = wave.astype(np.float32).reshape(len(wave), -1) / scale
    return checked_wave(wave, int(rate), sample_rate, "the sound")


@cache
def _warn_of_clipping(path: str, peak: float) -> None:
    """Once for each file and process."""
    _LOGGER.warning("%s reaches %.4g; what lies beyond [-1, 1] is cut off", path, peak)


def _cut_short(data: bytes) -> str:
    """How much of a sound is there, where its head or its last page tells that some is not; empty if it does not.

    libsndfile reads the rest of a file cut short as if nothing were wrong.
    """
    order = {b"RIFF": "little", b"RIFX": "big", b"FORM": "big"}.get(data[:4])
    # Programs that write into a pipe do not know the length and promise 2 GiB or more; some count the 8 bytes before
    # the number too.
    promised = int.from_bytes(data[4:8], "big" if order == "big" else "little") if order else 0
    if data.startswith(b".snd"):
        start, size = (int.from_bytes(data[i : i + 4], "big") for i in (4, 8))
        promised = start + size - 8
    if len(data) < promised < 2**31 - 1024:
        return f"{len(data)} of {promised + 8} bytes"
    if data.startswith(b"OggS"):
        # The last page says so, and fills all that its table of segments counts.
        page = data[data.rfind(b"OggS\0") :]
        segments = page[26] if len(page) > 26 else 0
        ends = len(page) > 26 and page[5] & 4 and len(page) >= 27 + segments + sum(page[27 : 27 + segments])
        return "" if ends else f"its last page is not there after {len(data)} bytes"
    return ""


def magnitude(wave: Tensor, *, n_fft: int, hop: int) -> Tensor:
    """|STFT| with a Hann window of n_fft, frames centred (the ends mirrored):
    (..., T) -> (..., n_fft // 2 + 1, T // hop + 1). T must exceed n_fft / 2."""
    import torch

    window = torch.hann_window(n_fft, device=wave.device)
    return torch.stft(wave, n_fft, hop, window=window, center=True, return_complex=True).abs()


def log(magnitude: Tensor, *, floor: float = 1e-7) -> Tensor:
    """log(magnitude + floor)."""
    return magnitude.add(floor).log()


@dataclass(frozen=True)
class Spectrogram:
    """A log spectrogram of a waveform of fixed length.

    Args:
        sample_rate: Hz.
        seconds: length of the waveform.
        n_fft, hop: window and step of the STFT (samples).
        standardise: bring each spectrogram to mean 0 and standard deviation 1.
    """

    sample_rate: int
    seconds: float
    n_fft: int
    hop: int
    standardise: bool

    @property
    def samples(self) -> int:
        return round(self.seconds * self.sample_rate)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, self.n_fft // 2 + 1, self.samples // self.hop + 1

    def read(self, path: Path) -> np.ndarray:
        """The waveform (samples,) of a file, tiled until long enough, then cut; raises as `read_audio`."""
        return np.resize(read_audio(path, self.sample_rate), self.samples)

    def magnitude(self, wave: np.ndarray) -> np.ndarray:
        """|STFT| of (samples,), clipped to [-1, 1] before: (F, T) float32. Noise acts on it."""
        import torch

        return magnitude(torch.from_numpy(wave).clamp(-1, 1), n_fft=self.n_fft, hop=self.hop).numpy()

    def finish(self, magnitude: np.ndarray) -> Tensor:
        """(F, T) -> `shape`, logarithmic."""
        import torch

        x = log(torch.from_numpy(magnitude))[None]
        if not self.standardise:
            return x.float()
        # DMRNet's released code. In float64: the spectrogram of a silent clip is constant, and float32 would
        # blow the rounding error of its mean up to one standard deviation.
        x = x.double()
        return ((x - x.mean()) / (x.std(correction=0) + 1e-9)).float()
