"""`plan=true`: which runs, how long, how much disk; and that it starts nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmrobust.evaluation.results import read_results
from mmrobust.run import main
from mmrobust.sweeps.plan import duration, size
from tests.runs import tiny

SMALL = tiny(
    "encoder.width=16",
    "data.num_train=640",
    "data.num_val=64",
    "data.num_test=64",
    "data.batch_size=32",
    "trainer.max_epochs=2",
    "data.num_modalities=3",
)


def seconds(text: str) -> float:
    (number, unit) = text.split()[:2]
    return float(number) * (60 if unit == "min" else 1)


def test_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Against what the run then takes: the disk within a few per cent, the time roughly."""
    run = [*SMALL, f"paths.outputs={tmp_path}/out", "keep=all"]
    assert main([*run, "plan=true"]) == 0
    printed = capsys.readouterr().out
    assert "plan: 1 runs, 0 complete, 0 interrupted, 1 new" in printed
    assert "nothing was started" in printed
    assert not (tmp_path / "out").exists()
    assert main(run) == 0
    (folder,) = (path.parent for path in (tmp_path / "out").glob("*/*/results.json"))
    disk = {
        "checkpoints": sum(path.stat().st_size for path in folder.glob("checkpoints/*")),
        "predictions": (folder / "predictions.npz").stat().st_size,
    }
    for name, count in disk.items():
        told = re.search(rf"{name} (\d+) KiB", printed)
        assert told is not None
        assert int(told[1]) * 1024 == pytest.approx(count, rel=0.1), name
    train = re.search(r"training ([\d.]+ \w+),", printed)
    assert train is not None
    assert 0.2 < seconds(train[1]) / read_results(folder)["cost"]["train_seconds"] < 5
    capsys.readouterr()
    assert main([*run, "plan=true"]) == 0
    assert "1 complete, 0 interrupted, 0 new" in capsys.readouterr().out


def test_a_sweep_with_teachers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs that differ in their seeds alone are timed once; a teacher for each seed, which students share."""
    sweep = [
        *SMALL,
        f"paths.outputs={tmp_path}/out",
        "seed=0,1",
        "method=distillation,mmanet,late",
        "plan=true",
    ]
    assert main(["-m", *sweep]) == 0
    printed = capsys.readouterr().out
    assert "plan: 8 runs, 0 complete, 0 interrupted, 8 new" in printed
    lines = [line.split(":")[0].strip() for line in printed.splitlines() if " each (" in line]
    assert lines == ["2 × teacher (fusion)", *(f"2 × method={m}" for m in ("distillation", "mmanet", "late"))]
    assert not (tmp_path / "out").exists()


def test_runs_that_would_fail_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of one method do not keep the others from being timed."""
    maps = [
        "data=synthetic",
        "data.task=segmentation",
        "data.num_train=16",
        "data.num_val=8",
        "data.batch_size=8",
    ]
    sweep = [*maps, "method=pdf,dropout", f"paths.outputs={tmp_path}/out", "plan=true"]
    assert main(["-m", *sweep]) == 1
    printed = capsys.readouterr().out
    assert "1 × method=pdf: would fail: PDF does classification, but the dataset's task is" in printed
    assert "1 × method=dropout: " in printed
    assert "nothing was started" in printed
    assert main([*maps, "method=pdf", "plan=true"]) == 2


def test_searches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    out = f"paths.outputs={tmp_path}/out"
    space = "optimizer.lr=interval(1e-3,1e-2)"
    assert (
        main(["-m", *SMALL, out, "sweep=optuna", "sweep.trials=7", space, "method=fusion", "plan=true"]) == 0
    )
    assert "7 × trial of study fusion_synthetic" in capsys.readouterr().out
    fair = ["sweep=fair", "sweep.trials=4", "method=fusion,dropout", "plan=true"]
    assert main(["-m", *SMALL, out, *fair]) == 0
    printed = capsys.readouterr().out
    assert "plan: 14 runs" in printed
    assert "3 × dropout, the best values with seeds 1, 2, 3" in printed
    assert not (tmp_path / "out").exists()


def test_no_choice_but_true_and_false(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan=perhaps"]) == 2
    assert "plan=perhaps is not true or false" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "text"), [(3.04, "3.0 s"), (90, "2 min"), (7100, "118 min"), (8000, "2 h 13 min")]
)
def test_durations(value: float, text: str) -> None:
    assert duration(value) == text


@pytest.mark.parametrize(("value", "text"), [(10, "10 B"), (2048, "2 KiB"), (5 * 2**30, "5.0 GiB")])
def test_sizes(value: float, text: str) -> None:
    assert size(value) == text
