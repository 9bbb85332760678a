import numpy as np
import pytest
import soundfile
import torch

from mmrobust.data.files.audio import Spectrogram, log, magnitude, read_audio
from mmrobust.errors import UserError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:c6f94b25\nsize 72862\n"


def tone(seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)


def test_stereo_is_averaged(tmp_path):
    left = tone(0.5, 16000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left / 2], 1), 16000, subtype="FLOAT")
    assert np.allclose(read_audio(tmp_path / "a.wav", 16000), left / 4, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
def test_resampling_keeps_length_and_pitch(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(1, rate), rate)
    wave = read_audio(tmp_path / "a.wav", 22050)
    assert wave.dtype == np.float32
    assert abs(len(wave) - 22050) <= 1
    assert abs(np.abs(np.fft.rfft(wave)).argmax() - 440) <= 1


def numpy_log_stft(wave: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    padded = np.pad(wave.astype(np.float64), n_fft // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = [padded[i : i + n_fft] * window for i in range(0, len(wave) + 1, hop)]
    return np.log(np.abs(np.fft.rfft(frames, axis=1)).T + 1e-7)


def test_log_spectrogram_is_the_stft():
    wave = np.random.default_rng(0).normal(size=66150).astype(np.float32) * 0.1
    ours = log(magnitude(torch.from_numpy(wave), n_fft=512, hop=353))
    assert ours.shape == (257, 188)
    theirs = numpy_log_stft(wave, 512, 353)
    assert np.allclose(ours.exp(), np.exp(theirs), atol=1e-4)
    loud = theirs > np.log(0.1)  # the log of what nearly cancels is ill-conditioned in float32
    assert loud.mean() > 0.9
    assert np.allclose(ours.numpy()[loud], theirs[loud], atol=1e-4)


def spectrogram(standardise: bool) -> Spectrogram:
    return Spectrogram(sample_rate=22050, seconds=3, n_fft=512, hop=353, standardise=standardise)


def finished(standardise: bool, wave: np.ndarray) -> torch.Tensor:
    return spectrogram(standardise).finish(spectrogram(standardise).magnitude(wave))


def test_short_clip_is_tiled_and_long_clip_cut(tmp_path):
    for seconds in (0.1, 5):
        soundfile.write(tmp_path / "a.wav", tone(seconds, 22050), 22050, subtype="FLOAT")
        wave, whole = spectrogram(False).read(tmp_path / "a.wav"), tone(seconds, 22050)
        assert np.allclose(wave, np.tile(whole, 31)[:66150], atol=1e-6)


def test_loud_waveform_is_clipped():
    wave = np.random.default_rng(0).normal(size=66150).astype(np.float32) * 2
    assert torch.equal(finished(False, wave), finished(False, wave.clip(-1, 1)))


def test_standardised():
    x = finished(True, np.random.default_rng(0).normal(size=66150).astype(np.float32) * 0.1)
    assert x.shape == spectrogram(True).shape == (1, 257, 188)
    assert x.dtype == torch.float32
    assert abs(x.mean()) < 1e-5
    assert abs(x.std() - 1) < 1e-3


def test_silence_is_finite_and_stays_flat():
    silence = np.zeros(66150, np.float32)
    assert torch.allclose(finished(False, silence), torch.tensor(1e-7).log())
    assert finished(True, silence).abs().max() < 1e-3


def test_what_cannot_be_read_is_named(tmp_path):
    soundfile.write(tmp_path / "whole.wav", tone(1, 16000), 16000)
    whole = (tmp_path / "whole.wav").read_bytes()
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    (tmp_path / "cut.wav").write_bytes(whole[:9000])
    (tmp_path / "header.wav").write_bytes(whole[:30])
    (tmp_path / "nothing.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("not a sound")
    (tmp_path / "pointer.wav").write_text(POINTER)
    for name, complaint in {
        "cut": "cut short: 9000 of 32044 bytes",
        "header": "cut short",
        "empty": "holds no samples",
        "nothing": "cannot be read as sound",
        "text": "cannot be read as sound",
        "pointer": "git lfs pull",
        "absent": "No such file",
    }.items():
        with pytest.raises(UserError, match=complaint) as caught:
            read_audio(tmp_path / f"{name}.wav", 16000)
        assert f"{name}.wav" in str(caught.value)


def test_wav_from_a_pipe_promises_too_much_and_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1, 16000), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(data)
    assert len(read_audio(tmp_path / "a.wav", 16000)) == 16000
