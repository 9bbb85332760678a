"""A trained run evaluated anew, and its numbers checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mmrobust
from mmrobust.evaluate import main
from mmrobust.evaluation.results import read_predictions, read_results, write_predictions
from mmrobust.run import main as run
from tests.data.manifest_tree import make_manifest, read_rows, write_table
from tests.runs import tiny

SMALL = tiny("data.num_val=64", "data.num_test=64", "data.batch_size=32", "trainer.max_epochs=2", "keep=all")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    assert run([*SMALL, f"paths.outputs={outputs}"]) == 0
    return next(outputs.glob("*/*"))


def test_the_same_protocol_gives_the_same_numbers(folder: Path) -> None:
    assert main([f"run={folder}"]) == 0
    again = read_results(next((folder / "evaluations").glob("test-best-*")))
    assert again["combinations"] == read_results(folder)["combinations"]


def test_another_protocol(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = set((folder / "evaluations").glob("*"))
    assert main([f"run={folder}", "missing=mcar", "missing.test.rate={m1: 0.5}"]) == 0
    (new,) = set((folder / "evaluations").glob("*")) - before
    results = read_results(new)
    full = results["combinations"]["m1+m2"]["n"]
    assert 16 < full < 48
    assert results["combinations"]["m2"]["n"] == 64
    assert results["protocol"]["missing"]["test"]["realised_rate"]["m1"] == pytest.approx(
        1 - full / 64, abs=1e-4
    )
    printed = capsys.readouterr().out
    assert "available: each sample from all that it has" in printed
    assert "best checkpoint, mcar {'m1': 0.5}" in " ".join(printed.split())
    assert str(new / "combinations.png") in printed
    assert str(new / "panel.png") in printed
    assert main([f"run={new}", "verify=true"]) == 0


def test_noise(folder: Path) -> None:
    before = set((folder / "evaluations").glob("*"))
    assert main([f"run={folder}", "noise/pattern@noise.test=gaussian", "noise.test.level=11"]) == 0
    (new,) = set((folder / "evaluations").glob("*")) - before
    results = read_results(new)
    noise = results["protocol"]["noise"]
    assert noise["test"]["protocol"]["level"] == 11
    assert 0.2 < noise["test"]["realised_share"]["m1"] < 0.8
    assert noise["train"]["protocol"] == {"name": "clean"}
    assert results["combinations"] != read_results(folder)["combinations"]


def test_validation_split_and_last_checkpoint(folder: Path) -> None:
    assert main([f"run={folder}", "split=val", "checkpoint=last"]) == 0
    results = read_results(next((folder / "evaluations").glob("val-last-*")))
    assert results["protocol"]["split"] == "val"


def test_verify(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"run={folder}", "verify=true"]) == 0
    assert "24 of 24 numbers agree" in capsys.readouterr().out


def test_verify_finds_a_changed_number(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = read_results(folder)
    results["combinations"]["m1"]["metrics"]["accuracy"] += 0.01
    (tmp_path / "results.json").write_text(json.dumps(results))
    write_predictions(tmp_path, read_predictions(folder / "predictions.npz"))
    assert main([f"run={tmp_path}", "verify=true"]) == 1
    printed = capsys.readouterr().out
    assert "/combinations/m1/metrics/accuracy: stored" in printed
    assert "23 of 24" in printed


def test_another_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labelled files that the run was not made with, beside which a modality is missing altogether."""
    keys = [
        "encoder=tiny",
        "encoder.width=8",
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
        "logger=none",
    ]
    table = make_manifest(tmp_path / "data", 12)
    of_run = [f"data.manifest={table}", "data.columns=[rgb,depth,vector]", "data.workers=0"]
    assert run(["method=dropout", "data=manifest", *of_run, *keys, f"paths.run={tmp_path}/run"]) == 0
    rows = [{k: r[k] for k in ("id", "label", "rgb", "vector")} for r in read_rows(table)][:7]
    other = write_table(tmp_path / "data/other.csv", rows)
    assert main([f"run={tmp_path}/run", f"data.manifest={other}"]) == 0
    (new,) = (tmp_path / "run/evaluations").glob("external-*")
    found = read_results(new)
    assert {n: row["n"] for n, row in found["combinations"].items()} == {
        **dict.fromkeys(["rgb", "vector", "rgb+vector"], 7),
        **dict.fromkeys(["depth", "rgb+depth", "depth+vector", "rgb+depth+vector"], 0),
    }
    assert found["protocol"]["manifest"] == str(other)
    kept = read_predictions(new / "predictions.npz")
    assert kept["ids"].tolist() == [row["id"] for row in rows]
    assert kept["classes"].tolist() == ["cat", "dog"]
    assert "other.csv" in capsys.readouterr().out
    assert main([f"run={new}", "verify=true"]) == 0
    # The answers are those for the same files when they were in the run's own table.
    model = mmrobust.load(tmp_path / "run", device="cpu")
    for i, row in enumerate(rows):
        odds = model.predict({m: tmp_path / "data" / row[m] for m in ("rgb", "vector")}).probabilities
        logits = kept["logits"][i, list(kept["combinations"]).index("rgb+vector")]
        np.testing.assert_allclose(list(odds.values()), np.exp(logits) / np.exp(logits).sum(), atol=1e-5)


def test_another_table_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [
        "encoder=tiny",
        "encoder.width=8",
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
        "logger=none",
    ]
    table = make_manifest(tmp_path / "data", 12)
    of_run = [f"data.manifest={table}", "data.columns=[vector]", "data.workers=0"]
    assert run(["method=fusion", "data=manifest", *of_run, *keys, f"paths.run={tmp_path}/run"]) == 0
    rows = [{k: r[k] for k in ("id", "label", "vector")} for r in read_rows(table)]
    cases = {
        "labels that data.classes has not: 1 (line 2: cow)": [rows[0] | {"label": "cow"}],
        "has no column label, and this run does classification": [{"id": "a", "vector": "x", "value": "1"}],
        "has no column of this run's modalities (vector)": [{"id": "a", "label": "cat", "nose": "x.npy"}],
        "names no row of test; leave the column out": [rows[0] | {"split": "train"}],
        "no such files below": [rows[0] | {"vector": "nowhere.npy"}],
    }
    for words, content in cases.items():
        other = write_table(tmp_path / "data/other.csv", content)
        assert main([f"run={tmp_path}/run", f"data.manifest={other}"]) == 2
        assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run=nowhere"], "nowhere is not a run's folder"),
        (["split=test"], "name the run"),
        (["run=x", "optimizer.lr=1"], "optimizer.lr cannot be changed for an evaluation"),
        (["run=x", "split=train"], "split=train is not known"),
        (["run=x", "verify"], "'verify' is not key=value"),
        (["run=x", "-m"], "-m: an evaluation is of one protocol; run the command once for each"),
        (["run=x", "trainer.devices=2"], "trainer.devices=2: an evaluation uses one device; leave it out"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["missing.test.rate=0.3"], "there is no key missing.test.rate; missing=mcar has it"),
        (
            ["missing=mcar", "missing.test.rate=0.1,0.2"],
            "lists several values, and an evaluation is of one protocol",
        ),
    ],
)
def test_mistakes_of_the_protocol(
    keys: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"run={folder}", *keys]) == 2
    assert words in capsys.readouterr().err


def test_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table that was named relative to where the run was started; one without a validation split."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    lines = ["id,split,label,x"]
    for i in range(24):
        np.save(f"{i}.npy", np.full(4, i % 2, np.float32))
        lines.append(f"s{i},{('train', 'train', 'test')[i % 3]},{'ab'[i % 2]},{i}.npy")
    Path("my.csv").write_text("\n".join(lines) + "\n")
    given = [
        "data=manifest",
        "data.manifest=my.csv",
        "data.validation=0",
        "method=fusion",
        "encoder.width=8",
        "data.workers=0",
    ]
    assert run([*given, "trainer.max_epochs=1", "trainer.accelerator=cpu", "paths.run=run"]) == 0
    assert "epoch 1/1  train/loss" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert main(["run=here/run"]) == 0


def test_other_data_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("results.json", "config.yaml"):
        (tmp_path / name).write_text((folder / name).read_text().replace("num_test: 64", "num_test: 65"))
    shutil.copytree(folder / "checkpoints", tmp_path / "checkpoints")
    assert main([f"run={tmp_path}"]) == 2
    assert "is not what" in capsys.readouterr().err


def test_modalities_that_hang_on_the_task(tmp_path: Path) -> None:
    scenes = ["data.task=segmentation", "data.num_modalities=3", "method=dropout"]
    assert run([*SMALL, *scenes, f"paths.outputs={tmp_path}"]) == 0
    folder = next(tmp_path.glob("*/*"))
    assert main([f"run={folder}", "verify=true"]) == 0
    other = ["missing/pattern@missing.test=fixed", "missing.test.combination=[rgb,infrared]"]
    assert main([f"run={folder}", *other]) == 0
    new = next((folder / "evaluations").glob("test-best-*"))
    rows = read_results(new)["combinations"]
    assert {name for name, row in rows.items() if row and row["n"]} == {"rgb", "infrared", "rgb+infrared"}
    assert (new / "panel.png").stat().st_size > 0


DAMAGE: dict[str, Callable[[dict[str, np.ndarray]], object]] = {
    "lacks": lambda arrays: arrays.pop("target"),
    "cut": lambda arrays: arrays.update(target=arrays["target"][:3]),
    "text": lambda arrays: arrays.update(logits=np.full(arrays["logits"].shape, "x")),
    "flat": lambda arrays: arrays.update(logits=arrays["logits"].reshape(-1)),
    "empty": lambda arrays: arrays.clear(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_verify_of_damaged_predictions(
    damage: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = read_predictions(folder / "predictions.npz")
    DAMAGE[damage](arrays)
    (tmp_path / "results.json").write_text((folder / "results.json").read_text())
    write_predictions(tmp_path, arrays)
    assert main([f"run={tmp_path}", "verify=true"]) == 2
    assert "does not belong to results.json beside it" in capsys.readouterr().err
