"""Videos, made up: `write_film`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmrobust.prepare.video import installed

RATE = 16000  # Hz, of a video's sound
CODECS = {".mp4": ("libx264", "aac"), ".flv": ("flv", "libmp3lame")}
FAST = {"libx264": {"preset": "ultrafast"}}


def tone(pitch: float, seconds: float, rate: int) -> np.ndarray:
    """(T,) float64 of amplitude 0.5."""
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


def picture(label: int, frame: int, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8: a colour by class, brighter on the left, and lines that move with the frames."""
    image = np.zeros((*size, 3), np.uint8)
    image[..., label % 3] = np.linspace(250, 60, size[1]) * (label % 5 + 2) / 6
    image[frame % 8 :: 8] = 255
    return image


def write_film(
    path: Path, label: int, seconds: float, size: tuple[int, int], *, fps: int = 5, sound: bool = True
) -> None:
    """A video whose picture and pitch depend on its class.

    Args:
        path: its ending says the container.
        label: the class.
        seconds: its length.
        size: (height, width), even.
        fps: frames a second.
        sound: whether it has any.
    """
    av = installed()
    video_codec, audio_codec = CODECS[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(f"file:{path}", "w") as container:
        video = container.add_stream(video_codec, rate=fps, options=FAST.get(video_codec, {}))
        video.height, video.width = size
        video.pix_fmt = "yuv420p"
        rate = RATE if path.suffix == ".mp4" else 22050  # of those that an .flv may have
        audio = container.add_stream(audio_codec, rate=rate, layout="mono") if sound else None
        for i in range(round(seconds * fps)):
            frame = av.VideoFrame.from_ndarray(picture(label, i, size), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            wave = (tone(200 * (label + 1), seconds, rate) * 32767).astype(np.int16)
            samples = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
            samples.sample_rate = rate
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))
