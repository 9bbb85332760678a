"""The learning rate for the effective batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrobust.config.check import check_command_line
from mmrobust.config.compose import compose_config
from mmrobust.config.identity import config_hash
from mmrobust.config.scaling import describe_optimization, effective_batch, tell_optimization
from mmrobust.errors import UserError
from mmrobust.evaluation.results import read_results
from mmrobust.run import main

GIVEN = ["optimizer.lr=0.01", "data.batch_size=64", "trainer.accumulate_grad_batches=4", "lr_scaling.base=64"]


@pytest.mark.parametrize(("rule", "lr"), [("none", 0.01), ("linear", 0.04), ("sqrt", 0.02)])
def test_rules(rule: str, lr: float) -> None:
    """The schedule refers to the scaled one."""
    config = compose_config([*GIVEN, f"lr_scaling.rule={rule}", "schedule=onecycle"])
    assert effective_batch(config) == 256
    assert config.optimizer.lr == pytest.approx(lr)
    assert config.method.optimizer.lr == pytest.approx(lr)
    assert config.method.schedule.max_lr == pytest.approx(lr)
    assert describe_optimization(config)["lr_scaling"]["factor"] == pytest.approx(lr / 0.01)


def test_in_words() -> None:
    config = compose_config([*GIVEN, "lr_scaling.rule=linear"])
    assert tell_optimization(config, 1) == [
        "effective batch: 64 x 4 accumulated = 256",
        "optimizer.lr: 0.01 x 4 = 0.04 (linear in the batch, from 64 to 256)",
    ]
    assert tell_optimization(compose_config(["data.batch_size=64"]), 2) == [
        "effective batch: 64; 32 on each of 2 devices"
    ]


def test_it_is_part_of_the_hash() -> None:
    hashes = {
        config_hash(compose_config([*GIVEN, f"lr_scaling.rule={r}"])) for r in ("none", "linear", "sqrt")
    }
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["lr_scaling.rule=lin", "lr_scaling.base=64"], "lr_scaling.rule=lin is not known; choose none"),
        (
            ["lr_scaling.rule=sqrt"],
            "needs lr_scaling.base, the effective batch that optimizer.lr was chosen for",
        ),
        (["lr_scaling.rule=sqrt", "lr_scaling.base=0"], "and it is 0"),
    ],
)
def test_mistakes(keys: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_command_line(keys, None, multirun=False)


def test_in_a_run(tmp_path: Path) -> None:
    """Stated in the log and the result; what is saved is not scaled again."""
    small = [
        "encoder.width=8",
        "data=synthetic",
        "data.num_train=128",
        "data.num_val=8",
        "data.num_test=8",
        "data.batch_size=16",
    ]
    small += ["trainer.accelerator=cpu", "trainer.max_epochs=1", "schedule=constant", "method=dropout"]
    small += ["trainer.accumulate_grad_batches=4", "lr_scaling.rule=linear", "lr_scaling.base=16"]
    assert main([*small, "optimizer=sgd", "optimizer.lr=0.01", f"paths.run={tmp_path}"]) == 0
    log = (tmp_path / "log.txt").read_text()
    assert "effective batch: 16 x 4 accumulated = 64" in log
    assert "optimizer.lr: 0.01 x 4 = 0.04" in log
    stated = read_results(tmp_path)["optimization"]
    assert (stated["effective_batch"], stated["lr"]) == (64, 0.04)
