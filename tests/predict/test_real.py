"""Real files, where they are: what is predicted of them is what the run's own test predicted."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import mmrobust
from mmrobust.combinations import all_combinations, combination_name
from mmrobust.data.files.images import read_indices
from mmrobust.evaluation.results import read_predictions
from mmrobust.predict.__main__ import main as predict
from mmrobust.run import main as run
from mmrobust.tasks.counts import confusion_counts
from tests.predict.runs import read_csv, softmax

DATA = Path(os.environ.get("MMROBUST_DATA", "nowhere"))
SMALL = [
    "data.workers=0",
    "encoder=tiny",
    "encoder.width=8",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.limit_train_batches=4",
    "logger=none",
]


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=f"no {name} in MMROBUST_DATA")


@pytest.mark.slow
@needs("mosi")
def test_mosi(tmp_path: Path) -> None:
    """What was said, in words, and how; predicted from the table of the run, from the command line and in Python."""
    table, names = DATA / "mosi/mosi.csv", ("transcript", "audio", "video")
    of_text = ["encoder@encoder.transcript=text", "encoder.transcript.width=8"]
    columns = f"data.columns=[{','.join(names)}]"
    given = ["method=pdf", "data=manifest", f"data.manifest={table}", columns, *of_text, *SMALL]
    assert run([*given, f"paths.run={tmp_path}/run"]) == 0
    expected = read_predictions(tmp_path / "run/predictions.npz")
    order = {name: i for i, name in enumerate(expected["ids"].tolist())}
    model = mmrobust.load(tmp_path / "run", device="cpu")
    with table.open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    for k, combination in enumerate(all_combinations(names)):
        left = [m for m in names if m not in combination]
        drop = [f"missing=drop:{','.join(left)}"] if left else []
        output = tmp_path / f"{combination_name(combination)}.csv"
        assert predict([f"run={tmp_path}/run", f"data.manifest={table}", f"output={output}", *drop]) == 0
        seen = 0
        for row in read_csv(output):
            if (i := order.get(row["id"])) is not None and row["available"] == combination_name(combination):
                odds = softmax(expected["logits"][i, k])
                found = [float(row[f"p_{c}"]) for c in model.classes]
                np.testing.assert_allclose(found, odds, atol=1e-5)
                seen += 1
        assert seen == len(order)
        for name in list(order)[:5]:
            row = rows[name]
            sample = {m: row[m] if m == "transcript" else table.parent / row[m] for m in combination}
            odds = list(model.predict(sample).probabilities.values())
            np.testing.assert_allclose(odds, softmax(expected["logits"][order[name], k]), atol=1e-5)


@pytest.mark.slow
@needs("nyuv2")
def test_nyuv2(tmp_path: Path) -> None:
    root = DATA / "nyuv2"
    sizes = ["data.image_size=[96,128]", "data.class_weights=none", "trainer.limit_test_batches=null"]
    given = ["method=dmrnet", "data=nyuv2", f"data.root={root}", "data.batch_size=16", *sizes, *SMALL]
    assert run([*given, f"paths.run={tmp_path}/run"]) == 0
    expected = read_predictions(tmp_path / "run/predictions.npz")
    model = mmrobust.load(tmp_path / "run", device="cpu")
    for name in ("rgb", "depth"):
        (tmp_path / name).mkdir()
        for sample in expected["ids"][:6].tolist():
            source = next((root / "test" / name).glob(f"{sample}.*"))
            (tmp_path / name / source.name).symlink_to(source)
    for k, combination in enumerate(all_combinations(["rgb", "depth"])):
        folders = [f"{m}={tmp_path / m}" for m in combination]
        output = tmp_path / f"{combination_name(combination)}.csv"
        assert predict([f"run={tmp_path}/run", *folders, f"output={output}", "batch_size=4"]) == 0
        for row in read_csv(output):
            i = expected["ids"].tolist().index(row["id"])
            files = {m: next((tmp_path / m).glob(f"{row['id']}.*")) for m in combination}
            mask = read_indices(tmp_path / row["prediction"])
            np.testing.assert_array_equal(mask, model.predict(files).prediction)
            true = read_indices(root / f"test/labels_40/{row['id']}.png").astype(np.int64)
            label, found = torch.from_numpy(np.maximum(true - 1, 0))[None], torch.from_numpy(mask).long()
            counts = confusion_counts(found[None], label, torch.from_numpy(true > 0)[None], 40)[0]
            # A pixel whose two best classes are as good as equal may turn with the batch's size.
            assert abs(counts.numpy() - expected["confusion"][i, k]).sum() <= 4


@pytest.mark.slow
@needs("avmnist")
def test_avmnist(tmp_path: Path) -> None:
    """Without the noise that this dataset adds, a recording is predicted as in the run's own test."""
    keys = [
        "data.image_noise=0",
        "data.audio_snr=null",
        "data.pairs=512",
        "data.fixed_images=1",
        "data.download=false",
    ]
    given = ["method=qmf", "data=avmnist", f"data.root={DATA / 'avmnist'}", *keys, *SMALL]
    assert run([*given, f"paths.run={tmp_path}/run"]) == 0
    expected = read_predictions(tmp_path / "run/predictions.npz")
    model = mmrobust.load(tmp_path / "run", device="cpu")
    assert model.classes == tuple("0123456789")
    k = expected["combinations"].tolist().index("audio")
    sounds = DATA / "avmnist/free-spoken-digit-dataset/recordings"
    for i, name in list(enumerate(expected["ids"].tolist()))[:20]:
        answer = model.predict({"audio": sounds / f"{name.partition('+')[0]}.wav"})
        np.testing.assert_allclose(
            list(answer.probabilities.values()), softmax(expected["logits"][i, k]), atol=1e-5
        )
        assert set(answer.weights) == {"audio"}
