"""Lines for epochs where there is no bar."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrobust.run import main
from mmrobust.training.progress import EpochLines
from tests.runs import tiny

SMALL = tiny("method=dropout", "keep=none")


@pytest.mark.parametrize("more", [[], ["trainer.limit_val_batches=0"]], ids=["validated", "not"])
def test_every_epoch_is_told_once(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the places within a long one."""
    monkeypatch.setattr(EpochLines, "SECONDS", 0)
    assert main([*SMALL, *more, "trainer.max_epochs=2", f"paths.run={tmp_path}"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert [line.split("  ")[0] for line in lines if "batch" not in line] == ["epoch 1/2", "epoch 2/2"]
    assert sum("batch 2/4" in line for line in lines) == 2
    assert all("train/loss" in line for line in lines)


def test_the_beginning_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is known, in the order in which it becomes known; and that an equal run was complete."""
    given = [*SMALL, f"paths.outputs={tmp_path}"]
    assert main(given) == 0
    printed = capsys.readouterr().out
    (folder,) = tmp_path.glob("dropout_synthetic/*")
    words = (
        f"dropout on synthetic, seed 0: {folder}",
        "reading synthetic",
        "data: 64 train, 16 val, 16 test; m1, m2; 8 classes",
        "parameters, on cpu (1 threads)",
        "epoch 1/1",
    )
    places = [printed.index(text) for text in words]
    assert places == sorted(places)
    assert main(given) == 0
    again = capsys.readouterr().out
    assert again.index(f"this run is complete in {folder}; it is made once more") < again.index("epoch 1/1")


def test_a_job_of_a_sweep_says_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *SMALL, "seed=0,1", f"paths.outputs={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "reading" not in printed
    assert "┃" not in printed
    assert printed.count("accuracy average 0.") == 2
    assert "sweep: 2 done, 0 failed, 0 left" in printed
