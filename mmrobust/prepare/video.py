"""Videos to frames and sounds, by PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mmrobust.errors import UserError
from mmrobust.files import is_pointer
from mmrobust.prepare.written import write_frames, write_sound

if TYPE_CHECKING:
    import av

SUFFIXES = (".mp4", ".flv", ".mkv", ".webm", ".avi", ".mov")
QUALITY = 95  # of JPEGs
MOST_DAMAGED = 0.05  # of all packets
MOST_MISSING = 0.25  # s, and 2 % of the length, by which a video may end earlier than its head says


@dataclass(frozen=True)
class Decoded:
    """Args:
    frames: JPEG files, the k-th is what is seen at second k / fps.
    sound: (T,) int16, mono; none if the video has none.
    """

    frames: list[bytes]
    sound: np.ndarray | None


def in_folders(raw: Path, folders: Iterable[str]) -> list[Path]:
    """The videos in the first of the folders that there is, sorted."""
    folder = next((raw / name for name in folders if (raw / name).is_dir()), None)
    found = folder.glob("[!.]*") if folder else ()
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)


def check_usable(path: Path) -> None:
    """Raises: UserError: there is no such file, it is empty or a git-LFS pointer."""
    try:
        empty, pointer = path.stat().st_size == 0, is_pointer(path)
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {error.strerror}") from error
    if empty:
        raise UserError(f"{path} is empty (0 bytes); get it again")
    if pointer:
        raise UserError(f"{path} is a git-LFS pointer; run `git lfs pull` in its clone")


def decode(path: Path, fps: int, rate: int) -> Decoded:
    """Decode a video, once, to frames and sound.

    Args:
        path: the video.
        fps: frames a second.
        rate: of the sound, Hz.

    Raises:
        UserError: PyAV is not installed; the video is empty, a git-LFS pointer, cut short, damaged, or has no picture.
    """
    check_usable(path)
    with _opened(path) as container:
        videos, sounds = container.streams.video, container.streams.audio
        if not videos:
            raise UserError(f"{path} has no picture; get it again, or take it out")
        video, sound = videos[0], (sounds[0] if sounds else None)
        video.codec_context.thread_count = 1
        frames, wave = _Frames(fps, float(video.average_rate or 25)), _Wave(rate)
        end, damaged, packets = 0.0, 0, 0
        for packet in container.demux([video] if sound is None else [video, sound]):
            if packet.size and not packet.is_corrupt and packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            packets += 1
            try:
                for frame in packet.decode():
                    (frames if packet.stream is video else wave).add(frame)
            except installed().error.FFmpegError:
                damaged += 1
        started = (container.start_time or 0) / 1e6
        length = (container.duration or 0) / 1e6 + started
    if length - end > MOST_MISSING + 0.02 * length:
        raise UserError(f"{path} is cut short: {end:.1f} of {length:.1f} s; get it again")
    if damaged > MOST_DAMAGED * packets or not frames.jpegs:
        raise UserError(f"{path} is damaged: {damaged} of {packets} packets cannot be decoded; get it again")
    return Decoded(frames.jpegs, wave.finish() if sound is not None else None)


class _Frames:
    """Those seen at second 0, 1 / fps, 2 / fps, ..."""

    def __init__(self, fps: int, rate: float) -> None:
        self.fps, self.early = fps, 0.5 / rate
        self.first: float | None = None
        self.jpegs: list[bytes] = []

    def add(self, frame: av.VideoFrame) -> None:
        time = frame.time if frame.time is not None else 0.0
        if self.first is None:
            self.first = time
        jpeg = b""
        while time - self.first >= len(self.jpegs) / self.fps - self.early:
            jpeg = jpeg or as_jpeg(frame)
            self.jpegs.append(jpeg)


def as_jpeg(frame: av.VideoFrame) -> bytes:
    """Turned as it is to be shown."""
    turned = np.rot90(frame.to_ndarray(format="bgr24"), round(frame.rotation / 90))
    image = np.ascontiguousarray(turned, dtype=np.uint8)
    return bytes(cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))[1])


class _Wave:
    def __init__(self, rate: int) -> None:
        self.resampler = installed().AudioResampler("s16", "mono", rate)
        self.parts: list[np.ndarray] = []

    def add(self, frame: av.AudioFrame | None) -> None:
        self.parts += [part.to_ndarray()[0] for part in self.resampler.resample(frame)]

    def finish(self) -> np.ndarray | None:
        if not self.parts:
            return None
        self.add(None)
        return np.concatenate(self.parts)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    av = installed()
    try:
        # A name may begin with a dash or hold a colon, which would else be taken for a protocol.
        with av.open(f"file:{path}", metadata_errors="ignore") as container:
            yield container
    except (av.error.FFmpegError, ValueError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as a video ({why}); get it again") from error


def installed() -> Any:
    try:
        import av
    except ImportError as error:
        raise UserError(
            "videos are decoded with PyAV, which is not installed; pip install 'mmrobust[video]', or: pip install av"
        ) from error
    return av


def extract(video: Path, frames: str, sound: str, fps: int, rate: int, root: Path) -> None:
    """A video to a folder of frames and a sound file below `root`.

    Raises:
        UserError: as `decode`; or it has no sound.
    """
    decoded = decode(video, fps, rate)
    if decoded.sound is None:
        raise UserError(f"{video} has no sound; get it again, or take it out")
    write_sound(root / sound, decoded.sound, rate)
    write_frames(root / frames, decoded.frames)
