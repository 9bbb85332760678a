"""Weights shared out over two processes on the CPU: the numbers, the checkpoint and the end of a whole network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmrobust.errors import UserError
from mmrobust.evaluate import main as evaluate
from mmrobust.evaluation.results import read_results
from mmrobust.run import main
from mmrobust.training.sharding import Sharded, whole_encoders
from tests.made import make_method
from tests.runs import fault, tiny, weights

SMALL = tiny(
    "encoder.width=16",
    "data.num_train=192",  # 12 batches an epoch
    "data.num_val=49",  # 25 and 24, of 8 each: a batch more on one rank, were they not evened
    "data.num_test=33",
    "trainer.max_epochs=2",
    "trainer.devices=2",
    "trainer.gradient_clip_val=0.1",
    "optimizer=sgd",
    "method.mining_epochs=1",
    "missing=mcar",
    "keep=all",
    "allow=[tests]",
)


@pytest.mark.slow
def test_a_sharded_run_is_that_of_whole_networks(tmp_path: Path) -> None:
    """Clipped by the norm, with BatchNorm and what is mined; stopped in the middle and gone on with; evaluated by one
    process."""
    assert main([*SMALL, f"paths.run={tmp_path}/whole"]) == 0
    sharded = [*SMALL, "trainer.strategy=fsdp", f"paths.run={tmp_path}/run", fault("batch", 13, 15, tmp_path)]
    assert main(sharded) != 0
    stopped = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert stopped["steps"] == 22  # the tenth batch of the second epoch, when all are asked
    assert stopped["optimizer_states"][0]["state"]
    assert main([f"resume={tmp_path}/run", "allow=[tests]"]) == 0
    whole, shared = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert whole.keys() == shared.keys()
    for name, value in whole.items():
        assert value.dtype == shared[name].dtype
        torch.testing.assert_close(shared[name], value, atol=1e-5, rtol=1e-4, msg=name)
    assert shared["mining.hard"].sum() > 0
    assert evaluate([f"run={tmp_path}/run", "allow=[tests]"]) == 0
    (again,) = (tmp_path / "run/evaluations").glob("*")
    own = read_results(tmp_path / "run")["combinations"]
    for name, found in read_results(again)["combinations"].items():
        assert found["n"] == own[name]["n"] == 33
        assert found["metrics"] == pytest.approx(own[name]["metrics"], abs=1e-6)  # in batches of another size


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["method=mla", "trainer.devices=2"], "method=mla takes several optimizer steps a batch"),
        (["method=ogm_ge", "trainer.devices=2"], "method=ogm_ge changes gradients"),
        (["method=dgl", "trainer.devices=2"], "method=dgl reads the parameters of its parts"),
        (["method=dropout", "trainer.devices=1"], "there is one; set trainer.devices"),
        (["method=dropout", "trainer.devices=2", "trainer.fast_dev_run=true"], "saves no checkpoint"),
    ],
)
def test_what_cannot_be_sharded_is_refused(
    keys: list[str], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["trainer=fsdp", "trainer.accelerator=cpu", *keys, f"paths.run={tmp_path}/run"]) == 2
    assert words in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_frozen_copy_that_follows_is_refused() -> None:
    keys = ["method=osmd", "method.stages=teacher_first", "method.teacher_epochs=1"]
    with pytest.raises(UserError, match="method=osmd reads the parameters of its parts"):
        Sharded(make_method(*keys, num_modalities=2))


def test_encoders_that_a_fusion_takes_apart_stay_with_the_rest() -> None:
    assert len(whole_encoders(make_method("method=dropout", num_modalities=3))) == 3

    method = make_method("method=dropout", num_modalities=3)
    method.stolen = next(method.encoders["m2"].children())
    assert method.encoders["m2"] not in whole_encoders(method)
    assert len(whole_encoders(method)) == 2
