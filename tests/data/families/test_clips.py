from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmrobust.data.families.clips import Clip, Clips, frames_in
from mmrobust.data.files.audio import Spectrogram
from mmrobust.data.spec import Modality
from mmrobust.data.split import Key
from mmrobust.errors import Problems, UserError, summarised

RATE = 8000


def clips(sound: Path, *, seconds: float, tiled: float, run_seed: int | None, part=None) -> Clips:
    spectrogram = Spectrogram(RATE, seconds, 256, 128, False)
    visual = Modality("video", (3, 1, 8, 8))
    return Clips({"one": Clip(sound, [], 0, part)}, visual, spectrogram, tiled, run_seed)


@pytest.fixture
def ramp(tmp_path) -> Path:
    """Three seconds whose value is the time in units of 4 s."""
    path = tmp_path / "ramp.wav"
    soundfile.write(path, np.arange(3 * RATE) / (4 * RATE), RATE, subtype="FLOAT")
    return path


def test_sound_is_tiled_and_cut(ramp):
    split = clips(ramp, seconds=2, tiled=8, run_seed=None)
    wave = split.sound(split.clips[0])
    assert wave.shape == (8 * RATE,)
    assert np.allclose(wave[3 * RATE : 6 * RATE], wave[: 3 * RATE])


def test_part_of_the_sound(ramp):
    split = clips(ramp, seconds=1, tiled=1, run_seed=None, part=(2, 3))
    wave = split.sound(split.clips[0])
    assert wave[0] == pytest.approx(0.5)
    beyond = clips(ramp, seconds=1, tiled=1, run_seed=None, part=(8, 10))
    with pytest.raises(UserError, match=r"ramp\.wav lasts 3\.0 s, its event 8 to 10 s"):
        beyond.sound(beyond.clips[0])


def starts(split: Clips, monkeypatch, epochs: int = 40) -> np.ndarray:
    """Where (s) the stretches begin that the spectrograms show."""
    shown: list[np.ndarray] = []
    monkeypatch.setattr(Spectrogram, "magnitude", lambda self, wave: shown.append(wave) or wave)
    raw = {"audio": split.sound(split.clips[0]), "visual": np.zeros((1, 16, 16, 3), np.uint8)}
    for epoch in range(epochs):
        split.augment(raw, Key(epoch, 0))
    assert {len(wave) for wave in shown} == {split.spectrogram.samples}
    return np.array([wave[0] * 4 for wave in shown])


def test_stretch_is_random_in_training_and_centred_in_testing(ramp, monkeypatch):
    drawn = starts(clips(ramp, seconds=1, tiled=3, run_seed=0), monkeypatch)
    assert drawn.min() < 0.3
    assert drawn.max() > 1.7
    assert np.array_equal(starts(clips(ramp, seconds=1, tiled=3, run_seed=0), monkeypatch), drawn)
    assert starts(clips(ramp, seconds=1, tiled=3, run_seed=None), monkeypatch) == pytest.approx(1)


def test_problems_are_counted():
    problems = Problems()
    problems.add("none", [], "nothing to do")
    problems.add("no sound", list("abcd"), "get them")
    assert problems == ["no sound: 4 (a, b, c, …); get them"]
    assert summarised(["a"]) == "1 (a)"


def test_frames_may_be_png_or_jpeg(tmp_path):
    for name in ("2.png", "1.jpg", "3.JPEG", ".4.jpg", "5.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in frames_in(tmp_path)] == ["1.jpg", "2.png", "3.JPEG"]
    assert frames_in(tmp_path / "none") == []
