"""A sweep composes once what its jobs share, and says in a moment that it is complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmrobust.config.compose import compose_config
from mmrobust.config.identity import run_folder
from mmrobust.evaluation.results import write_results
from mmrobust.run import main
from mmrobust.sweeps import composer
from mmrobust.sweeps.composer import Composer

JOBS = [
    ["method=mmanet", "seed=3", "data.batch_size=8"],
    ["data=avmnist", "missing=mcar", "missing.train.rate=0.2", "encoder.image.name=resnet18"],
    ["lr_scaling.rule=linear", "lr_scaling.base=8", "optimizer.lr=0.1", "data.batch_size=16"],
    ["+optimizer.eps=1e-6", "data=synthetic", "~data.names", "callbacks=none"],
    ["schedule=onecycle", "trainer.max_epochs=7"],
]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job[0])
def test_the_same_configuration(job: list[str]) -> None:
    ours = Composer(None)
    for overrides in (job[:1], job):
        assert ours.compose(overrides) == compose_config(overrides)


def test_a_complete_sweep_composes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sixty jobs that differ in the seed."""
    shared = ["method=dropout", f"paths.outputs={tmp_path}"]
    ours = Composer(None)
    for seed in range(60):
        folder = run_folder(ours.compose([*shared, f"seed={seed}"]))
        write_results(folder, {"schema": 1, "status": "complete", "identity": {}, "protocol": {}})
    composed: list[Any] = []

    def counted(*arguments: Any) -> Any:
        composed.append(arguments)
        return compose_config(*arguments)

    monkeypatch.setattr(composer, "compose_config", counted)
    assert main(["-m", *shared, "seed=range(60)"]) == 0
    assert len(composed) == 1
    printed = capsys.readouterr().out
    assert printed.count("complete: ") == 60
    assert "60 were complete, 0 failed, 0 left" in printed
