"""Regression and several labels through everything: runs, verification, another evaluation, reports, two processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmrobust.errors import UserError
from mmrobust.evaluate import main as evaluate
from mmrobust.evaluation.results import read_predictions, read_results
from mmrobust.methods.mla import MLA
from mmrobust.report import main as report
from mmrobust.run import main
from mmrobust.tasks.metric import METRICS
from mmrobust.tasks.registry import require_task
from mmrobust.training.session import open_trained
from tests.runs import on_two_ranks, tiny

SMALL = tiny(
    "encoder.width=16",
    "data.kinds=[vector,text]",
    "data.variants=1",
    "data.num_train=256",
    "data.num_val=31",
    "data.num_test=63",
    "data.batch_size=32",
    "trainer.max_epochs=2",
    "missing=mcar",
    "missing.test.rate=0.3",
    "keep=all",
)
ADDED = {
    "regression": "+metrics.added={_target_: torchmetrics.R2Score, direction: null}",
    "multilabel": "metric=auroc",
}


@pytest.mark.parametrize("task", ADDED)
def test_a_whole_run(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [*SMALL, f"data.task={task}", "method=dropout", ADDED[task]]
    assert main([*keys, f"paths.run={tmp_path}/run"]) == 0
    results, folder = read_results(tmp_path / "run"), tmp_path / "run"
    primary = results["primary"]
    assert primary["direction"] == METRICS[primary["metric"]].direction
    rows = {name: row["metrics"] for name, row in results["combinations"].items()}
    assert all(value is not None for row in rows.values() for value in row.values())
    worst = max if primary["direction"] == "min" else min
    assert results["aggregates"]["worst"] == worst(rows.values(), key=lambda row: row[primary["metric"]])
    assert list(results["metrics"]) == ["added" if task == "regression" else "auroc"]
    assert (folder / "panel.png").is_file()
    assert (folder / "combinations.png").is_file()
    assert "no panel.png was drawn" not in (folder / "log.txt").read_text()
    assert evaluate([f"run={folder}", "verify=true"]) == 0
    assert evaluate([f"run={folder}"]) == 0
    (again,) = folder.glob("evaluations/*")
    assert read_results(again)["combinations"] == results["combinations"]
    assert open_trained(folder).spec.task == task
    assert report([str(tmp_path), "--format", "markdown"]) == 0
    assert f" · {primary['metric']}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("task", ADDED)
def test_two_processes(task: str, tmp_path: Path) -> None:
    keys = [*SMALL, f"data.task={task}", "method=dmrnet", ADDED[task]]
    on_two_ranks([*keys, f"paths.run={tmp_path}/2"], tmp_path)
    assert evaluate([f"run={tmp_path}/2"]) == 0
    (again,) = (tmp_path / "2/evaluations").glob("*")
    two, one = (read_results(folder)["combinations"] for folder in (tmp_path / "2", again))
    for name, row in two.items():
        assert row["n"] == one[name]["n"]
        assert row["metrics"] == pytest.approx(one[name]["metrics"], rel=1e-4)
    a, b = (read_predictions(folder / "predictions.npz") for folder in (tmp_path / "2", again))
    np.testing.assert_array_equal(a["target"], b["target"])
    assert evaluate([f"run={tmp_path}/2", "verify=true"]) == 0


def test_others_refuse_before_a_teacher_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [*SMALL, "data.task=regression", "method=mmanet", f"paths.outputs={tmp_path}"]
    assert main(keys) == 2
    told = capsys.readouterr()
    assert "MMANet does classification and segmentation, but the dataset's task is regression" in told.err
    assert "training the teacher" not in told.out


def test_the_error_says_what_to_take() -> None:
    with pytest.raises(
        UserError, match=r"MLA does classification, but .* task is multilabel; method=dropout does all"
    ):
        require_task(MLA, "multilabel")
