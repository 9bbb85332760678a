"""What a run is opened with, and that a trained one opens from its folder alone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file

from mmrobust.batch import Batch
from mmrobust.combinations import combination_masks
from mmrobust.config.compose import compose_config
from mmrobust.config.identity import save_run_config
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.errors import UserError
from mmrobust.evaluation.results import read_predictions
from mmrobust.run import main
from mmrobust.testing import make_batch
from mmrobust.training.checkpoints import Checkpoint
from mmrobust.training.progress import Position
from mmrobust.training.session import build_method, open_data, open_trained, open_training
from mmrobust.training.stopping import StopOnSignal

TABLE = [
    "data=manifest",
    "data.validation=0",
    "data.workers=0",
    "method=fusion",
    "encoder.width=8",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
]


def make_table(root: Path) -> dict[str, np.ndarray]:
    """`my.csv` with two vectors a sample; returns those of the test, (8, 4) and (8, 3)."""
    rng, lines = np.random.default_rng(0), ["id,split,label,a,b"]
    root.mkdir()
    test: dict[str, list[np.ndarray]] = {"a": [], "b": []}
    for i in range(32):
        split = ("train", "train", "train", "test")[i % 4]
        for name, size in (("a", 4), ("b", 3)):
            vector = rng.normal(i % 2, 2, size).astype(np.float32)
            np.save(root / f"{name}{i}.npy", vector)
            if split == "test":
                test[name].append(vector)
        lines.append(f"s{i},{split},{'xy'[i // 4 % 2]},a{i}.npy,b{i}.npy")
    (root / "my.csv").write_text("\n".join(lines) + "\n")
    return {name: np.stack(vectors) for name, vectors in test.items()}


def batch_of(inputs: Mapping[str, np.ndarray], config: DictConfig) -> Batch:
    """Made by hand from arrays, normalised as the run's configuration says."""
    count, columns = len(next(iter(inputs.values()))), {}
    for name, x in inputs.items():
        column: Any = OmegaConf.to_container(config.data.inferred.modalities[name])
        columns[name] = torch.from_numpy((x - np.float32(column["mean"])) / np.float32(column["std"]))
    return Batch(
        inputs=columns,
        available=torch.ones(count, len(inputs), dtype=torch.bool),
        target=torch.zeros(count, dtype=torch.long),
        noise_level=torch.zeros(count, len(inputs)),
        index=torch.arange(count),
        ids=[str(i) for i in range(count)],
    )


def test_a_trained_run_opens_without_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved, and its dataset deleted, it predicts what its own test did."""
    test = make_table(tmp_path / "data")
    table = f"data.manifest={tmp_path}/data/my.csv"
    assert main([*TABLE, table, f"paths.run={tmp_path}/first"]) == 0
    shutil.rmtree(tmp_path / "data")
    shutil.move(tmp_path / "first", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    trained = open_trained("run")
    assert not trained.method.training
    assert trained.spec.classes == ("x", "y")
    assert trained.spec.modalities == {"a": Modality("vector", (4,)), "b": Modality("vector", (3,))}
    expected, batch = read_predictions(Path("run/predictions.npz")), batch_of(test, trained.config)
    for k, name in enumerate(expected["combinations"]):
        mask = combination_masks([name.split("+")], list(trained.spec.modalities))
        with torch.inference_mode():
            logits = trained.method(batch.with_available(mask.expand(8, -1))).logits
        np.testing.assert_allclose(logits.numpy(), expected["logits"][:, k], rtol=1e-5, atol=1e-6)


def test_a_trained_run_opens_without_its_pretrained_weights(tmp_path: Path) -> None:
    """The file is gone that training began from. Its pixels have another mean than ours, which no checkpoint says."""
    import timm

    name = "tf_mobilenetv3_small_minimal_100"
    save_file(timm.create_model(name).state_dict(), tmp_path / "w.safetensors")
    given = ["method=fusion", "data=synthetic", "encoder=timm", f"encoder.name={name}"]
    config = compose_config([*given, f"encoder.weights={tmp_path}/w.safetensors"])
    spec = DataSpec("classification", 4, 8, {"m1": Modality("image", (3, 32, 32))})
    method = build_method(config, spec).eval()
    checkpoint: dict[str, Any] = {"state_dict": method.state_dict()}
    method.on_save_checkpoint(checkpoint)
    (tmp_path / "checkpoints").mkdir()
    torch.save(checkpoint, tmp_path / "checkpoints/last.ckpt")
    save_run_config(config, tmp_path)
    (tmp_path / "w.safetensors").unlink()
    batch = make_batch(spec)
    with torch.inference_mode():
        assert torch.equal(open_trained(tmp_path).method(batch).logits, method(batch).logits)
    with pytest.raises(UserError, match="no such file"):
        build_method(config, spec)


def test_what_training_is_opened_with(tmp_path: Path) -> None:
    """Position sees a step first, so that every checkpoint says where it is; what stops the run sees it last."""
    sizes = ["data.num_train=16", "data.num_val=8", "data.num_test=8", "data.batch_size=8"]
    given = ["data=synthetic", *sizes, "encoder.width=8", "trainer.accelerator=cpu", "selection=paper"]
    config = compose_config([*given, f"paths.run={tmp_path}"])
    data, mine = open_data(config), Callback()
    assert data.validation_split == "test"
    run = open_training(config, tmp_path, data, [mine])
    callbacks: list[Callback] = run.trainer.callbacks  # type: ignore[attr-defined]
    ours = [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
    assert isinstance(ours[0], Position)
    assert ours[0] is run.position
    assert ours[1] is mine
    assert [type(c) for c in callbacks if isinstance(c, StopOnSignal | Checkpoint)] == [
        StopOnSignal,
        Checkpoint,
        Checkpoint,
    ]
    assert run.resumed is None
