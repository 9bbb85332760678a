"""Videos to frames and sounds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mmrobust.errors import UserError
from mmrobust.prepare.synthetic.film import write_film
from mmrobust.prepare.video import decode

av = pytest.importorskip("av")


def write_counter(path: Path, frames: int, fps: int) -> None:
    """The k-th frame has the brightness 2 k, but for a white upper left corner."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 48, 64, "yuv420p", 2_000_000
        for k in range(frames):
            image = np.full((48, 64, 3), 2 * k, np.uint8)
            image[:16, :16] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(("fps", "expected"), [(1, [0, 25, 50, 75]), (5, [*range(0, 100, 5)])])
def test_the_kth_frame_is_that_of_second_k(tmp_path, fps, expected):
    write_counter(tmp_path / "a.mp4", 100, 25)
    frames = decode(tmp_path / "a.mp4", fps, 8000).frames
    images = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) for jpeg in frames]
    assert images[0].shape == (48, 64, 3)
    shown = [image[24:, 32:].mean() / 2 for image in images]
    assert np.allclose(shown, expected, atol=2)
    assert all(image[:12, :12].mean() > 235 for image in images)


def test_a_sound_keeps_its_pitch_and_length(tmp_path):
    for name in ("a.mp4", "a.flv"):
        write_film(tmp_path / name, 1, 2, (32, 32))  # 400 Hz
        sound = decode(tmp_path / name, 1, 8000).sound
        assert sound.dtype == np.int16
        assert abs(len(sound) / 8000 - 2) < 0.2
        spectrum = np.abs(np.fft.rfft(sound[4000:12000]))
        assert abs(int(spectrum.argmax()) - 400) <= 2
        assert 0.4 < np.abs(sound[4000:12000]).max() / 32768 < 0.6


def test_colours_and_silence(tmp_path):
    write_film(tmp_path / "a.mp4", 0, 1, (32, 32), sound=False)  # class 0 is red
    decoded = decode(tmp_path / "a.mp4", 1, 8000)
    assert decoded.sound is None
    blue, green, red = cv2.imdecode(np.frombuffer(decoded.frames[0], np.uint8), cv2.IMREAD_COLOR)[4].mean(0)
    assert red > 40 > 2 * max(blue, green)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.85])
def test_a_video_that_was_cut_short(tmp_path, share):
    path = tmp_path / "a.flv"
    write_film(path, 0, 4, (48, 64))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match="cut short"):
        decode(path, 1, 8000)


def test_a_sound_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="has no picture"):
        decode(tmp_path / "a.mp4", 1, 8000)
