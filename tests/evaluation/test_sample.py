"""A sample of the combinations: what is evaluated, and that everything says so."""

from pathlib import Path

import pytest

from mmrobust import evaluate, report
from mmrobust.evaluation.results import read_results
from mmrobust.run import main

SMALL = [
    "data=synthetic",
    "data.num_modalities=5",
    "data.num_train=16",
    "data.num_val=8",
    "data.num_test=8",
    "data.batch_size=8",
    "data.size=8",
    "data.variants=1",
    "encoder.width=8",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
]


@pytest.mark.parametrize("method", ["dropout", "mmanet", "osmd"])
def test_a_run(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["method.teacher.method=fusion", "method.warm_up=1", "method.mining_epochs=1"] * (
        method == "mmanet"
    )
    assert (
        main(
            [
                *SMALL,
                f"method={method}",
                *given,
                "combinations=20",
                f"paths.run={tmp_path}/run",
                f"paths.outputs={tmp_path}",
            ]
        )
        == 0
    )
    results = read_results(tmp_path / "run")
    assert results["protocol"]["sample"] == {"combinations": 20, "of": 31}
    assert len(results["combinations"]) == 20
    assert list(results["combinations"])[-1] == "m1+m2+m3+m4+m5"
    assert "a sample of 20 of 31 combinations" in capsys.readouterr().out
    assert report.main([f"{tmp_path}/run"]) == 0
    assert "a sample of 20 of 31 combinations" in capsys.readouterr().out
    assert evaluate.main([f"run={tmp_path}/run", "verify=true"]) == 0
    if method == "dropout":
        assert evaluate.main([f"run={tmp_path}/run", "combinations=all"]) == 0
        whole = read_results(next((tmp_path / "run").glob("evaluations/*")))
        assert len(whole["combinations"]) == 31
        for name, row in results["combinations"].items():
            assert whole["combinations"][name] == row
