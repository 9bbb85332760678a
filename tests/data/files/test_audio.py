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
        "nothing": r"\(0 bytes\) cannot be read as sound: it is empty; get",
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


@pytest.mark.parametrize("ending", ["wav", "aiff", "au", "ogg", "mp3", "flac"])
def test_half_a_file_is_told(tmp_path, ending):
    soundfile.write(tmp_path / f"whole.{ending}", tone(5, 8000), 8000)
    assert len(read_audio(tmp_path / f"whole.{ending}", 8000)) == 40000
    whole = (tmp_path / f"whole.{ending}").read_bytes()
    (tmp_path / f"half.{ending}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"half\.{ending}.*get the file again"):
        read_audio(tmp_path / f"half.{ending}", 8000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ending", ["wav", "aiff"])
def test_samples_that_are_no_numbers(tmp_path, value, ending):
    wave = np.stack([tone(1, 8000)] * 2, 1)
    wave[77, 1] = value
    soundfile.write(tmp_path / f"a.{ending}", wave, 8000, subtype="FLOAT")
    with pytest.raises(UserError, match=rf"a\.{ending} holds NaN or infinity"):
        read_audio(tmp_path / f"a.{ending}", 16000)


def test_sounds_beyond_one_are_told_and_other_units_refused(tmp_path, caplog):
    for name, factor in {"fits": 2, "loud": 3, "int16": 40000, "huge": 1e30}.items():
        soundfile.write(tmp_path / f"{name}.wav", factor * tone(1, 8000), 8000, subtype="FLOAT")
    for name in ("fits", "loud", "loud"):
        read_audio(tmp_path / f"{name}.wav", 8000)
    assert [record.getMessage().split("/")[-1] for record in caplog.records] == [
        "loud.wav reaches 1.5; what lies beyond [-1, 1] is cut off"
    ]
    for name, peak in {"int16": r"2e\+04", "huge": r"5e\+29"}.items():
        with pytest.raises(UserError, match=rf"{name}\.wav reaches {peak}, where a sound lies in \[-1, 1\]"):
            read_audio(tmp_path / f"{name}.wav", 8000)


def test_a_file_that_promises_what_it_cannot_hold(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(1, 8000), 8000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4  # 2**36 - 1 samples
    (tmp_path / "a.flac").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.flac .* claims to hold 68719476735 samples"):
        read_audio(tmp_path / "a.flac", 8000)
    soundfile.write(tmp_path / "silence.flac", np.zeros(10**6), 8000)
    assert len(read_audio(tmp_path / "silence.flac", 8000)) == 10**6
