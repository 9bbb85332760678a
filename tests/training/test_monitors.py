"""Callbacks of the configuration: what they log, how they are chosen, when they end training."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmrobust.config.compose import compose_config
from mmrobust.config.identity import config_hash
from mmrobust.evaluation.results import read_results
from mmrobust.run import main
from tests.runs import tiny

SMALL = tiny("method=dropout", "keep=none")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_choices_are_composed() -> None:
    assert list(compose_config([]).callbacks) == ["learning_rate", "gradient_norm"]
    assert compose_config(["callbacks=none"]).callbacks == {}
    both = compose_config(["callbacks=[early_stopping,learning_rate]", "callbacks.early_stopping.patience=3"])
    assert list(both.callbacks) == ["early_stopping", "learning_rate"]
    assert both.callbacks.early_stopping.patience == 3


def test_what_is_only_watched_makes_no_other_run() -> None:
    """Early stopping does."""
    hashes = {
        choice: config_hash(compose_config([f"callbacks={choice}"]))
        for choice in ("default", "none", "learning_rate", "[default,early_stopping]")
    }
    assert len(set(hashes.values())) == 2
    assert hashes["[default,early_stopping]"] != hashes["none"]


@pytest.mark.parametrize("method", ["dropout", "mla"])
def test_learning_rate_and_gradient_norm(method: str, tmp_path: Path) -> None:
    """Of the step, not of the next epoch; with one step a batch and with several."""
    schedule = ["schedule=step", "schedule.step_size=1", "schedule.gamma=0.1", "optimizer.lr=0.01"]
    more = [
        "trainer.max_epochs=2",
        "trainer.log_every_n_steps=3",
        f"method={method}",
        f"paths.run={tmp_path}",
    ]
    assert main([*SMALL, *schedule, *more]) == 0
    found = rows(tmp_path)
    assert [(row["step"], row["epoch"], float(row["train/lr"])) for row in found if row["train/lr"]] == [
        ("2", "1", 0.01),
        ("3", "1", 0.01),
        ("5", "2", pytest.approx(0.001)),
        ("7", "2", pytest.approx(0.001)),
    ]
    assert all(float(row["train/gradient_norm"]) > 0 for row in found if row["train/lr"])
    assert [row["epoch"] for row in found if row["test/m1/accuracy"]] == [""]


def test_switched_off_and_ones_own(tmp_path: Path) -> None:
    """A choice in the user's folder, beside one of ours."""
    mine = tmp_path / "conf/callbacks"
    mine.mkdir(parents=True)
    target = {"mine": {"_target_": "tests.faults.Occupies", "folder": str(tmp_path / "seen")}}
    (mine / "mine.yaml").write_text(json.dumps(target))
    run = tmp_path / "run"
    more = ["callbacks=[learning_rate,mine]", "allow=[tests]", "trainer.max_epochs=1", f"paths.run={run}"]
    assert main(["--config-dir", str(mine.parent), *SMALL, *more]) == 0
    assert list((tmp_path / "seen").iterdir())
    assert "train/gradient_norm" not in rows(run)[0]
    assert "train/lr" in rows(run)[0]


def test_an_early_stop_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    never = [
        "callbacks=early_stopping",
        "callbacks.early_stopping.min_delta=2",
        "callbacks.early_stopping.patience=2",
    ]
    assert main([*SMALL, *never, "trainer.max_epochs=9", f"paths.run={tmp_path}"]) == 0
    text = "stopped early, after epoch 3 of 9: val/average/accuracy has not improved for 2 validations"
    assert text in capsys.readouterr().out
    assert read_results(tmp_path)["status"] == "complete"
    assert "callbacks" in OmegaConf.load(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            ["callbacks.early_stopping.monitor=val/loss"],
            "watches val/loss, which is not logged; watch train/loss, val",
        ),
        (
            ["callbacks.early_stopping.monitor=val/m9/accuracy"],
            "a combination is average, worst, full, available, m1",
        ),
        (
            ["callbacks.early_stopping.monitor=val/m1/acuracy"],
            "which is not logged; did you mean val/m1/accuracy",
        ),
        (
            ["callbacks.early_stopping.mode=up"],
            "callbacks.early_stopping.mode='up' is not known; choose min, max",
        ),
        (["callbacks=[early_stoping]"], "callbacks=early_stoping is not known; did you mean early_stopping?"),
        (["callbacks=[]"], "callbacks=none"),
    ],
)
def test_mistakes(keys: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [] if keys[0].startswith("callbacks=") else ["callbacks=early_stopping"]
    assert main([*SMALL, "trainer.max_epochs=1", *chosen, *keys, f"paths.run={tmp_path}"]) == 2
    assert words in capsys.readouterr().err


# Overlays for finding mistakes


def test_debug_fast(tmp_path: Path) -> None:
    assert main([*SMALL, "debug=fast", f"paths.outputs={tmp_path}"]) == 0
    (run,) = tmp_path.glob("dropout_synthetic/*")
    assert read_results(run)["status"] == "partial"


def test_debug_overfit_sees_the_same_samples(tmp_path: Path) -> None:
    """Two batches are learnt by heart although the first epoch of others would do."""
    more = ["debug=overfit", "trainer.max_epochs=30", "optimizer.lr=0.01", "schedule=constant"]
    assert main([*SMALL, *more, "method=fusion", f"paths.run={tmp_path}"]) == 0
    losses = [float(row["train/loss/task"]) for row in rows(tmp_path) if row["train/loss/task"]]
    assert len(losses) == 30
    assert losses[-1] < 0.1 < losses[0]


def test_debug_profile_shows_its_table(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "debug=profile", f"paths.run={tmp_path}"]) == 0
    printed = capfd.readouterr().out
    assert "run_training_batch" in printed
    assert "Total time" in printed


def test_debug_runs_lie_apart() -> None:
    for choice in ("fast", "overfit", "profile", "anomaly"):
        config = compose_config([f"debug={choice}"])
        assert config.paths.outputs == "outputs/debug"
        assert compose_config([f"debug={choice}", "paths.outputs=x"]).paths.outputs == "x"
    assert compose_config(["debug=anomaly"]).trainer.detect_anomaly


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["method=dropout", "trainer.max_steps=6"], "trainer.max_steps=6 ends training in epoch 2 of trainer.max_epochs=3: schedules"),
        (["method=ogm_ge", "method.start=3"], "only from epoch 4 on does OGMGE do all that it does"),
        (["method=ogm_ge", "method.start=1", "trainer.max_steps=2"], "training ends after epoch 1, and only from epoch 2"),
    ],
)  # fmt: skip
def test_what_a_short_training_does_not_reach(
    given: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [text for text in SMALL if text != "method=dropout"]
    assert main([*others, "trainer.max_epochs=3", *given, f"paths.run={tmp_path}"]) == 0
    assert capsys.readouterr().out.count(words) == 1
    assert words in (tmp_path / "log.txt").read_text()
