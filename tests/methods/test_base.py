"""What all methods share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.methods.base import Method
from mmrobust.testing import describe_data, make_batch, step
from mmrobust.training.trainer import build_trainer
from tests.made import make_method
from tests.runs import tiny


def test_methods_of_one_seed_hide_the_same_features() -> None:
    batch = make_batch(describe_data(num_modalities=3), size=64)
    first, second = (
        make_method("method=dropout", num_modalities=3),
        make_method("method=dmrnet", num_modalities=3),
    )
    assert torch.equal(first.draw(batch), second.draw(batch))
    other = make_method("method=dropout", "seed=1", num_modalities=3)
    assert not torch.equal(first.draw(batch), other.draw(batch))


def test_what_is_drawn_is_available() -> None:
    batch = make_batch(describe_data(num_modalities=3), size=64, complete=False)
    drawn = make_method("method=dropout", num_modalities=3).draw(batch)
    assert (drawn <= batch.available).all()
    assert drawn.any(1).all()


def test_encoders_see_available_rows_only() -> None:
    method = make_method("method=fusion")
    batch = make_batch(method.spec, size=8)
    available = batch.available.clone()
    available[3:, 0] = False
    seen: list[int] = []
    method.encoders["m1"].register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    features = method.encode(batch.with_available(available))
    assert seen == [3]
    assert features["m1"].shape[0] == 8
    assert (features["m1"][3:] == 0).all()
    assert (features["m1"][:3] != 0).any()


def test_a_single_row_keeps_running_statistics() -> None:
    method = make_method("method=fusion", kinds=("vector",)).train()
    norm = next(m for m in method.encoders["m1"].modules() if isinstance(m, nn.BatchNorm1d))
    batch = make_batch(method.spec, size=8)
    available = batch.available.clone()
    available[1:, 0] = False
    before = norm.running_mean.clone()  # type: ignore[union-attr]
    step(method, batch.with_available(available))
    assert torch.equal(norm.running_mean, before)  # type: ignore[arg-type]
    assert norm.training


def test_encoder_of_one_modality() -> None:
    config = compose_config(["data=avmnist", "encoder.audio.width=4", "encoder.width=8"]).method
    from mmrobust.data.spec import DataSpec, Modality

    modalities = {"image": Modality("image", (1, 28, 28)), "audio": Modality("spectrogram", (1, 32, 32))}
    method: Method = construct(config, spec=DataSpec("classification", 10, 4, modalities))
    assert method.widths == {"image": 8, "audio": 4}


def test_a_task_that_a_method_cannot_do() -> None:
    class OnlyClassification(Method):
        tasks = ("classification",)

    config = compose_config(["method=fusion"]).method
    config._target_ = "mmrobust.methods.base.Method"
    keys = construct(config, spec=describe_data())  # Method itself can be built
    assert keys.spec.task == "classification"
    with pytest.raises(
        UserError, match="OnlyClassification does classification, but the dataset's task is segm"
    ):
        OnlyClassification(
            spec=describe_data(task="segmentation"),
            seed=0,
            encoder={},
            fusion=None,
            optimizer=None,
            schedule=None,
        )  # type: ignore[arg-type]


def test_several_updates_are_applied_one_after_the_other(tmp_path: Path) -> None:
    """After each update the next is computed with the changed weights, clipped as asked, and the schedule moves."""
    given = tiny(
        "data.kinds=[vector]", "trainer.max_epochs=2", "trainer.gradient_clip_val=0.01", "logger=none"
    )
    given += ["method=mla", "method.project=false", "schedule=step", "schedule.step_size=1"]
    given += ["optimizer=sgd", "optimizer.momentum=0", "optimizer.weight_decay=0", "optimizer.lr=1.0"]
    config = compose_config([*given, f"paths.run={tmp_path}"])
    data = construct(config.data)
    data.setup()
    torch.manual_seed(0)
    method: Method = construct(config.method, spec=data.spec)
    moved: list[float] = []
    before = [p.detach().clone() for p in method.parameters()]

    own = method.modulate

    def record() -> None:
        own()
        change = [(p.detach() - b).norm() for p, b in zip(method.parameters(), before, strict=True)]
        moved.append(torch.stack(change).norm().item())
        for p, b in zip(method.parameters(), before, strict=True):
            b.copy_(p.detach())

    trainer = build_trainer(config, tmp_path, method)
    method.modulate = record  # type: ignore[method-assign]
    trainer.fit(method, datamodule=data)
    assert len(moved) == 2 * 4 * 2  # updates, batches, epochs
    assert moved[0] == 0  # called before the first step
    assert moved[1] == pytest.approx(0.01, rel=1e-3)  # lr 1, clipped to 0.01
    assert moved[-1] == pytest.approx(0.001, rel=1e-2)  # lr 0.1 in the second epoch


def test_modulate_sees_gradients_before_clipping(tmp_path: Path) -> None:
    keys = tiny("data.batch_size=64", "method=fusion", "trainer.gradient_clip_val=1.0e-3", "logger=none")
    config = compose_config([*keys, f"paths.run={tmp_path}"])
    data = construct(config.data)
    data.setup()
    method: Method = construct(config.method, spec=data.spec)
    norms: list[float] = []

    def record() -> None:
        gradients = [p.grad.norm() for p in method.parameters() if p.grad is not None]
        norms.append(torch.stack(gradients).norm().item())

    method.modulate = record  # type: ignore[method-assign]
    build_trainer(config, tmp_path, method).fit(method, datamodule=data)
    assert len(norms) == 1
    assert norms[0] > 1e-3
