"""Missing-rate curves: one training for each train rate, an evaluation for each test rate."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrobust.evaluation.results import read_results
from mmrobust.report import main as report
from mmrobust.run import main
from tests.runs import tiny

SMALL = tiny("method=dropout", "data.num_val=32", "data.num_test=64", "data.batch_size=32")


@pytest.mark.slow
def test_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates = ["missing.train.rate=0.0,0.5", "test_rates=[0.0,0.6]"]
    sweep = ["-m", "sweep=curves", *SMALL, *rates, f"paths.outputs={tmp_path}/out", "keep=none"]
    assert main(sweep) == 0
    runs = [path.parent for path in (tmp_path / "out").glob("*/*/results.json")]
    assert len(runs) == 2  # two trainings, four evaluations
    for run in runs:
        assert not list(run.glob("checkpoints/*"))
        trained = read_results(run)["protocol"]["missing"]
        found = {}
        for path in run.glob("evaluations/*/results.json"):
            result = read_results(path)
            assert result["protocol"]["missing"]["train"] == trained["train"]  # says how it was trained
            found[result["protocol"]["missing"]["test"]["protocol"]["rate"]] = result
        assert {*found} == {0.0, 0.6}
        assert found[0.0]["aggregates"]["available"] == read_results(run)["aggregates"]["full"]
        assert found[0.6]["protocol"]["missing"]["test"]["realised_rate"]["m1"] == pytest.approx(0.5, abs=0.2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("results.json")}
    assert main(sweep) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert main([*SMALL, "optimizer.lr=0.1", f"paths.outputs={tmp_path}/out"]) == 0  # which has no curve
    capsys.readouterr()
    picture = tmp_path / "curves.png"
    assert report([f"{tmp_path}/out", "--format", "markdown", "--curves", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = capsys.readouterr().out.splitlines()
    assert "| test modalities missing | 0 | 0.6 |" in lines
    scores = {round(100 * found[rate]["aggregates"]["available"]["accuracy"], 1) for rate in found}
    rows = [line for line in lines if line.startswith("| dropout, trained")]
    assert [row.split("|")[1].strip() for row in rows] == [
        "dropout, trained with missing 0",
        "dropout, trained with missing 0.5",
    ]
    assert any({float(cell) for cell in row.split("|")[2:4]} == scores for row in rows)


def test_no_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, f"paths.outputs={tmp_path}"]) == 0
    assert report([str(tmp_path), "--curves", str(tmp_path / "x.png")]) == 2
    assert "there are no curves" in capsys.readouterr().err
    assert main(["test_rates=[0.5,2]"]) == 2
    assert "test_rates=[0.5, 2] is no list of rates in [0, 1]" in capsys.readouterr().err
