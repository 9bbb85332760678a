"""How jobs of sweeps end, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrobust.sweeps.jobs import AGAIN, Outcome, stopped_line
from tests.runs import started, tiny, until


def outcomes(*statuses: str) -> list[Outcome]:
    return [Outcome(number, [], status, None) for number, status in enumerate(statuses)]


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        (["saved"], "1 saved, 11 not started"),
        (["saved", "unstarted", "complete", "skipped"], "1 done, 1 were complete, 1 saved, 9 not started"),
        (["failed"], "1 failed, 11 not started"),
    ],
)
def test_a_stopped_sweep(statuses: list[str], words: str) -> None:
    assert stopped_line(outcomes(*statuses), 12) == f"{words}; {AGAIN}"


@pytest.mark.slow
def test_jobs_that_never_began_have_not_failed(tmp_path: Path) -> None:
    """Ctrl-C in a sweep of four on one worker: one is saved, three are not started."""
    jobs = ["-m", *tiny("data.num_train=640", "data.batch_size=32"), "method=dropout", "seed=0,1,2,3"]
    jobs += ["trainer.max_epochs=2", "allow=[tests]"]
    jobs += ["callbacks.slow={_target_: tests.faults.Slow, seconds: 0.4}", f"paths.outputs={tmp_path}/out"]
    jobs += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    sweep = started(jobs, tmp_path / "output.txt")
    until(lambda: len(list(tmp_path.glob("out/*/*/checkpoints/last.ckpt"))) == 2)
    sweep.send_signal(2)
    assert sweep.wait(120) == 130
    printed = (tmp_path / "output.txt").read_text()
    assert "2 saved, 2 not started; the same command goes on" in printed
    assert "failed" not in printed.partition("stopping the jobs")[2]
