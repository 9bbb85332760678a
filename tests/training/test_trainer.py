"""Precision, compiled encoders, and BatchNorm over several devices."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.distributed.nn.functional import all_reduce

from mmrobust.config.compose import compose_config
from mmrobust.evaluation.results import read_results
from mmrobust.run import main
from mmrobust.testing import describe_data, make_batch
from mmrobust.training.trainer import compile_encoders, tell
from tests.made import make_method
from tests.runs import free_port, tiny

SMALL = tiny("data.num_val=8", "data.num_test=8", "missing=mcar", "keep=all")


@pytest.mark.parametrize("method", ["dropout", "mla"])
def test_bf16_trains(method: str, tmp_path: Path) -> None:
    """With one optimizer's step a batch, and with several; the weights stay float32."""
    losses = []
    for precision in ("bf16-mixed", "32-true"):
        run = tmp_path / precision
        assert main([*SMALL, f"method={method}", f"trainer.precision={precision}", f"paths.run={run}"]) == 0
        state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        assert {x.dtype for x in state.values() if x.is_floating_point()} == {torch.float32}
        losses.append(torch.cat([x.flatten() for x in state.values() if x.is_floating_point()]))
        assert read_results(run)["combinations"]["m1+m2"]["n"] == 8
    assert not torch.equal(*losses)
    torch.testing.assert_close(*losses, atol=0.02, rtol=0.1)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_encoders() -> None:
    """The same numbers and keys with any number of rows, none and one included, and few graphs."""
    counters.clear()
    eager, compiled = (make_method("method=dropout", kinds=("vector",)).train() for _ in range(2))
    compile_encoders(compiled, True)
    assert compiled.state_dict().keys() == eager.state_dict().keys()
    for rows in (16, 11, 7, 1, 0, 5):
        batch = make_batch(eager.spec, size=16)
        available = batch.available.clone()
        available[rows:, 0] = False
        batch = batch.with_available(available)
        for method in (eager, compiled):
            method.zero_grad()
            sum(x.square().mean() for x in cast(dict[str, Tensor], method.encode(batch)).values()).backward()
        for (name, p), q in zip(eager.named_parameters(), compiled.parameters(), strict=True):
            if p.grad is not None:
                torch.testing.assert_close(q.grad, p.grad, msg=f"{name} with {rows} rows")
    for (name, a), b in zip(eager.state_dict().items(), compiled.state_dict().values(), strict=True):
        torch.testing.assert_close(b, a, msg=name)
    assert 0 < counters["stats"]["unique_graphs"] <= 4  # of two encoders: all rows, any number, one


def test_several_steps_a_batch_do_not_accumulate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = ["method=mla", "trainer.accumulate_grad_batches=2", f"paths.run={tmp_path}"]
    assert main([*SMALL, *keys]) == 2
    assert "method=mla takes several optimizer steps a batch; set it to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["data.batch_size=8"], "BatchNorm sees 4 samples on each of 2 devices; trainer.sync_batchnorm=true"),
        (["data.batch_size=8", "encoder.norm=group"], ""),
        (["data.batch_size=16"], ""),
        (["data.batch_size=8", "trainer.devices=1"], ""),
    ],
)
def test_batchnorm_that_sees_few_samples(
    keys: list[str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = compose_config(["method=dropout", "trainer.accelerator=cpu", "trainer.devices=2", *keys])
    norm = [key for key in keys if "norm" in key]
    with caplog.at_level(logging.INFO, "mmrobust"):
        tell(config, make_method("method=dropout", *norm))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == bool(words)
    assert words in "".join(warnings)


class OnCPU(nn.SyncBatchNorm):
    """Torch's is for GPUs only; this one meets in the same way: every rank that trains, with any number of rows."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        sums = torch.cat([x.sum(0), x.square().sum(0), x.new_tensor([len(x)])])
        sums = all_reduce(sums)
        mean, square = (sums[:-1] / sums[-1]).chunk(2)
        variance = square - mean.square()
        with torch.no_grad():
            cast(Tensor, self.running_mean).lerp_(mean, 0.1)
            cast(Tensor, self.running_var).lerp_(variance * sums[-1] / (sums[-1] - 1), 0.1)
        return (x - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias


def synchronised(rank: int, port: str, folder: Path, rows: list[int]) -> None:
    """Encode a half of the batches in whose n-th `rows[n]` samples have the first modality."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    method = make_method("method=dropout", kinds=("vector",)).train()
    for encoder in method.encoders.values():
        for module in list(encoder.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.BatchNorm1d):
                    module.add_module(name, OnCPU(child.num_features))
    torch.save(encoded(method, rows, slice(8 * rank, 8 * rank + 8)), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def encoded(method: Any, rows: list[int], part: slice) -> dict[str, Any]:
    whole = make_batch(describe_data(kinds=("vector",)), size=16)
    features = []
    for count in rows:
        available = whole.available.clone()
        available[count:, 0] = False
        batch = whole.with_available(available).select(range(16)[part])
        found = method.encode(batch)
        features.append(found["m1"].detach())
        sum(x.square().sum() for x in found.values()).backward()
    return {
        "features": features,
        "gradient": {n: p.grad for n, p in method.encoders.named_parameters()},
        "state": method.encoders.state_dict(),
    }


@pytest.mark.slow
def test_a_modality_that_one_rank_lacks_meets_the_others(tmp_path: Path) -> None:
    """Two ranks with SyncBatchNorm are one process: with rows on both, on one alone, a single one, and none."""
    rows, port = [16, 11, 8, 5, 1, 0], free_port()
    processes = [
        multiprocessing.get_context("fork").Process(
            target=synchronised, args=(rank, port, tmp_path, rows), daemon=True
        )
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    one = encoded(make_method("method=dropout", kinds=("vector",)).train(), rows, slice(0, 16))
    for n, count in enumerate(rows):
        both = torch.cat([first["features"][n], second["features"][n]])
        torch.testing.assert_close(both, one["features"][n], atol=1e-5, rtol=1e-4, msg=f"{count} rows")
    for name, gradient in one["gradient"].items():
        both = first["gradient"][name] + second["gradient"][name]
        torch.testing.assert_close(both, gradient, atol=1e-4, rtol=1e-3, msg=name)
    for name, value in one["state"].items():
        if "num_batches" not in name:
            torch.testing.assert_close(first["state"][name], value, atol=1e-5, rtol=1e-4, msg=name)
            assert torch.equal(first["state"][name], second["state"][name])
