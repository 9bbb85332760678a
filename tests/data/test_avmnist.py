import gzip
import hashlib
import io
import os
import pickle
import shutil
import time
import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import soundfile
import torch

from mmrobust.data.avmnist import AVMNIST
from mmrobust.data.families import digits
from mmrobust.data.families.pairs import Pairs, deal
from mmrobust.data.noise import Clean, UDMLv1
from mmrobust.data.split import Key
from mmrobust.errors import UserError
from mmrobust.missing import Complete

REAL = Path(os.environ.get("MMROBUST_DATA", "data")) / "avmnist"
SPEAKERS = ("ada", "bob")
KEYS = {
    "batch_size": 8,
    "workers": 0,
    "seed": 0,
    "run_seed": 0,
    "noise": {"train": Clean(), "test": Clean(), "seed": 0},
    "corrupt": "error",
    "missing": {"train": Complete(), "test": Complete(), "seed": 0},
    "download": False,
    "validation": 0.25,
    "fixed_images": 3,
    "pairs": None,
    "speaker": None,
    "image_noise": 160,
    "audio_snr": -2,
    "seconds": 0.25,
    "n_fft": 128,
    "hop": 64,
    "resolution": [16, 16],
}


QUIRKS_OFF = {"wrap_negative": False, "same_pattern": False}


def make(root: Path, **changes) -> AVMNIST:
    data = AVMNIST(root=str(root), **{**KEYS, **changes})
    data.setup()
    return data


def write_idx(path: Path, array: np.ndarray) -> None:
    head = np.array([2048 + array.ndim, *array.shape], dtype=">i4").tobytes()
    path.write_bytes(gzip.compress(head + array.tobytes(), 1))


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """360 training and 60 test images of pixel value 10 * digit; recordings 3-8 of 10 digits and 2 speakers."""
    root = tmp_path_factory.mktemp("avmnist")
    raw, recordings = root / "MNIST/raw", root / "free-spoken-digit-dataset/recordings"
    raw.mkdir(parents=True)
    recordings.mkdir(parents=True)
    for half, count in (("train", 360), ("t10k", 60)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        write_idx(raw / f"{half}-labels-idx1-ubyte.gz", labels)
        write_idx(raw / f"{half}-images-idx3-ubyte.gz", np.tile(labels[:, None, None] * 10, (1, 28, 28)))
    rng = np.random.default_rng(0)
    for digit in range(10):
        for speaker in SPEAKERS:
            for number in range(3, 9):
                wave = 0.1 * rng.standard_normal(1000 + 500 * number).astype(np.float32)
                soundfile.write(recordings / f"{digit}_{speaker}_{number}.wav", wave, 8000)
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "avmnist"))


def pool_names(split: Pairs) -> tuple[set[str], set[str]]:
    """All images and recordings that a split can ever show."""
    return set(split.pools["image"].names), set(split.pools["audio"].names)


def same(a, b) -> bool:
    return all(torch.equal(a.inputs[m], b.inputs[m]) for m in a.inputs)


def test_counts_and_shapes(root):
    data = make(root)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 60, "val": 60, "test": 120}
    assert data.spec.num_train == 60
    assert data.spec.num_classes == 10
    for name, split in data.splits.items():
        sample = split[Key(0, 3)]
        for modality, tensor in sample.inputs.items():
            assert tensor.dtype == torch.float32
            assert tuple(tensor.shape) == data.spec.modalities[modality].shape
        assert sample.inputs["image"].min() >= -1
        assert sample.inputs["image"].max() <= 1
        assert sample.inputs["audio"].mean().abs() < 1e-4, name
        assert abs(sample.inputs["audio"].std() - 1) < 1e-3
        assert len(set(split.ids)) == len(split)
    batch = next(iter(data.train_dataloader()))
    assert batch.inputs["audio"].shape == (8, 1, 16, 16)
    assert batch.available.all()


@pytest.mark.parametrize("changes", [{}, {"speaker": "bob"}, {"pairs": 100}])
def test_splits_share_nothing(root, changes):
    splits = make(root, **changes).splits
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        images, recordings = zip(pool_names(splits[a]), pool_names(splits[b]), strict=True)
        assert not images[0] & images[1]
        assert not recordings[0] & recordings[1]


@pytest.mark.parametrize("changes", [{}, {"pairs": 100}])
def test_partners_have_the_same_digit(root, changes):
    for split in make(root, **changes).splits.values():
        for epoch in (0, 1):
            rows = split.rows(epoch)
            for modality, pool in split.pools.items():
                assert pool.targets[rows[modality]].tolist() == split.targets


def test_a_pair_is_a_function_of_its_key(root):
    train, again = make(root).splits["train"], make(root).splits["train"]
    first, second = train[Key(0, 5)], train[Key(1, 5)]
    assert not same(first, second)
    assert same(first, again[Key(0, 5)])  # asked in another order
    assert same(second, again[Key(1, 5)])
    assert (train.rows(0)["image"] != train.rows(1)["image"]).any()
    assert not same(first, make(root, run_seed=1).splits["train"][Key(0, 5)])


@pytest.mark.parametrize("name", ["val", "test"])
def test_evaluation_never_changes(root, name):
    split = make(root).splits[name]
    other = make(root, run_seed=1).splits[name]
    assert same(split[Key(0, 7)], split[Key(4, 7)])
    assert same(split[Key(0, 7)], other[Key(0, 7)])
    assert list(split.ids) == list(other.ids)
    assert list(split.ids) != list(make(root, seed=1).splits[name].ids)


def test_a_recording_meets_different_images(root):
    split = make(root).splits["test"]
    images = split.rows(0)["image"].reshape(-1, 3)
    assert all(len(set(row)) == 3 for row in images.tolist())


def test_deal_uses_every_card_before_it_repeats_one():
    wanted, targets = np.array([0, 0, 0, 0, 1]), np.array([1, 0, 0, 1])
    rows = deal(wanted, targets, 0)
    assert sorted(rows[:4].tolist()) == [1, 1, 2, 2]
    assert targets[rows].tolist() == wanted.tolist()


def test_pairs_counts_images(root):
    data = make(root, pairs=400)  # of 330 images
    train = data.splits["train"]
    assert data.spec.num_train == len(train) == len(set(train.ids)) == 400
    assert len(set(train.rows(0)["image"])) == 330
    assert (train.rows(0)["image"] == train.rows(1)["image"]).all()
    assert (train.rows(0)["audio"] != train.rows(1)["audio"]).any()


def test_speaker_is_heard_in_the_test_alone(root):
    splits = make(root, speaker="bob").splits
    heard = {name: {n.split("_")[1] for n in pool_names(split)[1]} for name, split in splits.items()}
    assert heard == {"train": {"ada"}, "val": {"ada"}, "test": {"bob"}}
    assert len(splits["test"]) == 10 * 6 * 3
    with pytest.raises(UserError, match=r"data\.speaker=eve.*ada, bob"):
        make(root, speaker="eve")


def test_noise_is_physical(root):
    clean = make(root, image_noise=0, audio_snr=None).splits["test"]
    noisy = make(root).splits["test"]
    a, key = clean.read(Key(0, 0)), Key(0, 0)
    image, audio = clean.disturb(a, key)
    assert np.array_equal(image, a["image"])
    assert np.array_equal(audio, a["audio"])
    image, audio = noisy.disturb(a, key)
    assert np.array_equal(image, np.rint(image))
    assert (image >= 0).all()
    assert (image <= 255).all()
    power = np.mean((audio - a["audio"]) ** 2)
    assert abs(-10 * np.log10(power) + 2) < 0.5  # the recordings have unit power
    assert make(root).fingerprint != make(root, audio_snr=0).fingerprint


def test_more_noise_can_be_asked_for(root):
    noise = {"train": Clean(), "test": UDMLv1(0.0, 1, QUIRKS_OFF), "seed": 0}
    plain, noisy = make(root).splits["test"], make(root, noise=noise).splits["test"]
    for i in range(40):
        before, after = plain[Key(0, i)], noisy[Key(0, i)]
        changed = {m: not torch.equal(before.inputs[m], after.inputs[m]) for m in before.inputs}
        assert changed == {m: level > 0 for m, level in after.noise_level.items()}
        assert all(x.isfinite().all() and x.dtype == torch.float32 for x in after.inputs.values())
    assert len(np.unique(noisy.noise_levels(0)[:40])) > 5


def test_recordings_are_centred(root):
    short = make(root, seconds=2.0, audio_snr=None).splits["test"].pools["audio"].data[0]
    sound = np.flatnonzero(short)
    assert abs(sound[0] + sound[-1] - len(short)) < 4
    assert abs(np.mean(short[sound[0] : sound[-1] + 1] ** 2) - 1) < 0.01


def test_a_silent_recording_is_no_number_trouble(root):
    for path in (root / digits.TARGETS["recordings"]).glob("3_*.wav"):
        soundfile.write(path, np.zeros(500), 8000)
    split = make(root, audio_snr=None).splits["test"]
    assert all(torch.isfinite(split[Key(0, i)].inputs["audio"]).all() for i in range(27, 40))


def test_no_validation(root):
    data = make(root, validation=0)
    assert list(data.splits) == ["train", "test"]
    assert len(data.splits["train"].pools["image"].names) == 360


def test_splits_travel_to_workers(root):
    split = make(root).splits["train"]
    assert same(split[Key(2, 1)], pickle.loads(pickle.dumps(split))[Key(2, 1)])


def test_unpacked_files_are_read_too(root):
    expected = make(root).fingerprint
    for path in (root / "MNIST/raw").glob("*.gz"):
        (root / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    (root / "free-spoken-digit-dataset").rename(root / "free-spoken-digit-dataset-master")
    assert make(root).fingerprint == expected


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-100], "cannot be read"),
        (
            lambda raw: gzip.compress(gzip.decompress(raw)[:-5]),
            r"holds 282235 bytes .* announces \[360, 28, 28\]",
        ),
        (
            lambda raw: gzip.compress(b"\0\0\x08\x01" + gzip.decompress(raw)[4:]),
            "number 2049 instead of MNIST's 2051",
        ),
        (lambda raw: gzip.compress(b""), "number 0 instead"),
        (lambda raw: b"version https://git-lfs.github.com/spec/v1", "cannot be read"),
    ],
)
def test_damaged_images(root, damage, message):
    path = root / "MNIST/raw/train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        make(root)
    assert str(path) in str(error.value)


def test_images_without_their_labels(root):
    write_idx(root / "MNIST/raw/train-labels-idx1-ubyte.gz", np.zeros(7, np.uint8))
    with pytest.raises(UserError, match="360 images but 7 labels"):
        make(root)


def test_incomplete_recordings(root):
    for path in (root / digits.TARGETS["recordings"]).glob("3_*_[0-4].wav"):
        path.unlink()
    with pytest.raises(
        UserError, match=r"test split has fewer than 1 audio samples of digits \[3\].*116 recordings"
    ):
        make(root)


def test_missing_without_download(tmp_path):
    with pytest.raises(UserError, match=r"lacks train-images.*recordings.*data\.download is false"):
        make(tmp_path / "nowhere")


def test_failed_download_tells_what_to_fetch(root, monkeypatch):
    def offline(*_, **options):
        assert options["timeout"] <= 10
        raise URLError("no network")

    monkeypatch.setattr(digits, "urlopen", offline)
    (root / "MNIST/raw/t10k-labels-idx1-ubyte.gz").unlink()
    (root / "free-spoken-digit-dataset").rename(root.parent / f"{root.name}-away")
    with pytest.raises(UserError, match="no network") as error:
        make(root, download=True)
    text = str(error.value)
    assert "mnist/t10k-labels-idx1-ubyte.gz -> " + str(root / "MNIST/raw/t10k-labels-idx1-ubyte.gz") in text
    assert f"{digits.FSDD} -> {root / digits.TARGETS['recordings']}" in text
    assert "train-images" not in text  # what is there need not be fetched


def test_download(root, tmp_path_factory, monkeypatch):
    """Served from another folder; the first mirror answers with rubbish."""
    from torchvision.datasets import MNIST

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("fsdd-master/README.md", "read me")
        for path in (root / digits.TARGETS["recordings"]).glob("*.wav"):
            file.writestr(f"fsdd-master/recordings/{path.name}", path.read_bytes())
    raw = {path.name: path.read_bytes() for path in (root / "MNIST/raw").glob("*.gz")}
    served = {f"http://good/{name}": content for name, content in raw.items()} | {
        digits.FSDD: archive.getvalue()
    }
    monkeypatch.setattr(MNIST, "mirrors", ["http://bad/", "http://good/"])
    monkeypatch.setattr(
        MNIST, "resources", [(name, hashlib.md5(content).hexdigest()) for name, content in raw.items()]
    )
    monkeypatch.setattr(
        digits, "urlopen", lambda url, timeout: io.BytesIO(served.get(url, b"<html>404</html>"))
    )
    empty = tmp_path_factory.mktemp("empty") / "avmnist"
    assert make(empty, download=True).fingerprint == make(root).fingerprint
    assert sorted(path.name for path in (empty / "MNIST/raw").iterdir()) == sorted(raw)  # no leftovers
    assert not list(empty.rglob("*.part"))


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no AV-MNIST in {REAL}; set MMROBUST_DATA")
def test_the_real_files():
    default = {
        "validation": 0.1,
        "fixed_images": 10,
        "seconds": 1,
        "n_fft": 256,
        "hop": 128,
        "resolution": [32, 32],
    }
    data = make(REAL, **default)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 2430,
        "val": 2700,
        "test": 3000,
    }
    images = {name: len(pool_names(split)[0]) for name, split in data.splits.items()}
    assert images == {"train": 55000, "val": 5000, "test": 10000}
    assert np.bincount(data.splits["test"].targets).tolist() == [300] * 10
    assert len(set(data.splits["test"].rows(0)["image"])) == 3000
    train = data.splits["train"]
    times = []
    for index in range(200):
        start = time.perf_counter()
        train[Key(0, index)]
        times.append(time.perf_counter() - start)
    assert np.median(times) < 2e-3  # 0.2 ms on a quiet core; the median, as the machine may be busy

    theo = make(REAL, **default, speaker="theo", pairs=60000)
    assert {name: len(split) for name, split in theo.splits.items()} == {
        "train": 60000,
        "val": 2200,
        "test": 5000,
    }
