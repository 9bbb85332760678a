"""Whole runs through the command's `main`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrobust.config.overrides import with_quotes
from mmrobust.evaluation.results import read_predictions, read_results
from mmrobust.run import main
from tests.runs import finished, tiny, weights

SMALL = tiny(
    "encoder.width=16",
    "data.num_train=128",
    "data.num_val=64",
    "data.num_test=64",
    "data.batch_size=32",
    "trainer.max_epochs=2",
    "keep=all",
)


def arguments(tmp_path: Path, *more: str) -> list[str]:
    return [*SMALL, f"paths.outputs={tmp_path}", *more]


def test_default_run_leaves_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path)) == 0
    (folder,) = finished(tmp_path)
    for name in (
        "config.yaml",
        "overrides.txt",
        "metrics.csv",
        "log.txt",
        "predictions.npz",
        "combinations.png",
        "panel.png",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    ):
        assert (folder / name).stat().st_size > 0, name
    results = read_results(folder)
    assert results["status"] == "complete"
    assert list(results["combinations"]) == ["m1", "m2", "m1+m2"]
    assert all(row["n"] == 64 for row in results["combinations"].values())
    average = np.mean([row["metrics"]["accuracy"] for row in results["combinations"].values()])
    assert results["aggregates"]["average"]["accuracy"] == pytest.approx(average)
    assert results["cost"]["parameters"] > 0
    assert results["cost"]["train_seconds"] > 0
    assert results["identity"]["overrides"] == with_quotes(arguments(tmp_path))
    predictions = read_predictions(folder / "predictions.npz")
    assert predictions["logits"].shape == (64, 3, 8)
    printed = capsys.readouterr().out
    for word in (
        "m1+m2",
        "average",
        "worst",
        "results.json",
        "combinations.png",
        "panel.png",
        "best.ckpt",
        "epoch 2/2",
    ):
        assert word in printed
    with (folder / "metrics.csv").open() as file:
        columns = csv.DictReader(file).fieldnames or []
    for column in ("train/loss/kl", "val/m1/accuracy", "val/average/accuracy", "test/m1+m2/ece"):
        assert column in columns


@pytest.mark.slow
def test_learns_more_than_chance(tmp_path: Path) -> None:
    few = ["data=synthetic", "trainer.max_epochs=4", "trainer.accelerator=cpu"]
    assert main([f"paths.outputs={tmp_path}", *few]) == 0
    full = read_results(finished(tmp_path)[0])["aggregates"]["full"]["accuracy"]
    assert full > 0.7  # chance 0.125, Bayes 0.915


@pytest.mark.slow
def test_same_seed_same_weights(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert main(arguments(tmp_path / name, f"seed={seed}")) == 0
    a, b, c = (weights(finished(tmp_path / name)[0]) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


@pytest.mark.slow
def test_repeating_a_run_keeps_the_first(tmp_path: Path) -> None:
    for _ in range(2):
        assert main(arguments(tmp_path)) == 0
    first, second = finished(tmp_path)
    assert second.name == f"{first.name}-2"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fusion", "late", "dropout", "dmrnet"])
def test_methods_with_missing_data(method: str, tmp_path: Path) -> None:
    overrides = [f"method={method}", "data.num_modalities=3", "missing=mcar", "missing.test.rate=0.3"]
    assert main(arguments(tmp_path, *overrides)) == 0
    results = read_results(finished(tmp_path)[0])
    assert len(results["combinations"]) == 7
    assert results["combinations"]["m1+m2+m3"]["n"] < results["combinations"]["m1"]["n"] < 64
    assert 0.1 < results["protocol"]["missing"]["test"]["realised_rate"]["m1"] < 0.5
    assert results["aggregates"]["available"]["accuracy"] is not None


@pytest.mark.slow
def test_selection(tmp_path: Path) -> None:
    for selection in ("last", "paper"):
        assert main(arguments(tmp_path / selection, f"selection={selection}")) == 0
        folder = finished(tmp_path / selection)[0]
        assert read_results(folder)["protocol"]["selection"] == selection
        last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        assert last["steps"] == 8  # of the last epoch, whether or not it is the best one
        with (folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        best = max(float(row["val/average/accuracy"]) for row in rows if row["val/average/accuracy"])
        test = next(float(row["test/average/accuracy"]) for row in rows if row["test/average/accuracy"])
        if selection == "paper":  # the best epoch of the test split itself
            assert test == pytest.approx(best)


@pytest.mark.slow
def test_sweep_skips_what_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ["-m", *arguments(tmp_path, "method=fusion,late", "seed=0,1")]
    assert main(sweep) == 0
    times = {folder: (folder / "results.json").stat().st_mtime_ns for folder in finished(tmp_path)}
    assert len(times) == 4
    (next(iter(times)) / "results.json").unlink()
    capsys.readouterr()
    assert main(sweep) == 0
    assert capsys.readouterr().out.count("complete: ") == 3
    again = {folder: (folder / "results.json").stat().st_mtime_ns for folder in finished(tmp_path)}
    assert sum(again[folder] == time for folder, time in times.items()) == 3


@pytest.mark.slow
def test_a_failed_job_does_not_stop_the_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *arguments(tmp_path, "data.batch_size=256,32")]) == 1
    assert len(finished(tmp_path)) == 1
    printed = capsys.readouterr()
    assert "fewer than data.batch_size=256" in printed.err
    assert "1 runs failed" in printed.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=dmrnett"], "did you mean dmrnet"),
        (["method=late", "fusion=sum"], "method=late takes no fusion"),
        (["data.batch_size=500"], "fewer than data.batch_size=500"),
        (["encoder.m2.name=resnet17"], "timm has no model 'resnet17'"),
        (["encoder=resnet18", "data.kinds=[vector]"], "reads images, depth and spectrograms, not vectors"),
        (["data.clarity=2"], "clarity"),
        (["missing=fixed", "missing.train.combination=[m3]"], "m3"),
        (["method.hard=[m3]"], "hard combination 'm3'"),
        (["experiment=dmrnet_cremad", "method=late"], "experiment=dmrnet_cremad fixes method=dmrnet"),
        (["method=fusion,late"], "add -m"),
    ],
)
def test_mistakes(
    overrides: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = overrides if overrides[0].startswith("experiment") else arguments(tmp_path, *overrides)
    assert main(given) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert not finished(tmp_path)


def test_help_and_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for group in ("method", "data", "encoder", "fusion", "missing", "trainer", "logger", "experiment"):
        assert group in text
    assert text.count("python -m mmrobust.run") >= 6
    assert main(["--cfg", "job", "method=late"]) == 0
    assert "mmrobust.methods.late.LateFusion" in capsys.readouterr().out


def test_a_users_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "my conf" / "method"
    conf.mkdir(parents=True)
    text = (Path(__file__).parents[1] / "conf/method/fusion.yaml").read_text()
    (conf / "mine.yaml").write_text(text)
    assert main(["--config-dir", str(conf.parent), *arguments(tmp_path / "out"), "method=mine"]) == 0
    assert read_results(finished(tmp_path / "out")[0])["identity"]["method"] == "mine"
    assert "mine on synthetic" in capsys.readouterr().out


def test_late_alone_equals_the_unimodal_networks(tmp_path: Path) -> None:
    """Late fusion's single-modality rows do not depend on the other modality's presence in the data."""
    assert main(arguments(tmp_path, "method=late")) == 0
    predictions = read_predictions(finished(tmp_path)[0] / "predictions.npz")
    mean = predictions["logits"][:, :2].mean(1)
    np.testing.assert_allclose(predictions["logits"][:, 2], mean, atol=1e-5)


@pytest.mark.slow
def test_wandb_offline_run_holds_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.loggers.offline import runs

    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(arguments(tmp_path / "out", "logger=wandb")) == 0
    (folder,) = finished(tmp_path / "out")
    (written,) = runs(folder)
    results = read_results(folder)
    for name, row in results["combinations"].items():
        for metric, value in row["metrics"].items():
            assert written.history[f"test/{name}/{metric}"] == pytest.approx(value)
            assert f"val/{name}/{metric}" in written.history
    for name, values in results["aggregates"].items():
        for metric, value in values.items():
            assert written.summary[f"test/{name}/{metric}"] == pytest.approx(value)
            assert f"val/{name}/{metric}" in written.history
    assert {"train/loss/task", "train/loss/kl", "train/loss/hard", "test/combinations_table"} <= set(
        written.history
    )
    for name in ("combinations", "panel"):
        assert written.file(f"test/{name}").read_bytes() == (folder / f"{name}.png").read_bytes()
    assert "wandb sync" in capsys.readouterr().out
