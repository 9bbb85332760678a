"""The W&B logger without login, key or network: asks nothing and loses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lightning import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor, nn, ones
from torch.optim import SGD
from torch.utils.data import DataLoader

from mmrobust.errors import UserError
from mmrobust.loggers import wandb_run
from mmrobust.loggers.wandb_logger import WandbLogger
from tests.loggers.offline import compose, config, make, runs
from tests.loggers.offline import nobody_logged_in as nobody_logged_in

RESULTS: dict[str, Any] = {
    "combinations": {
        "audio": None,  # the method does not serve it
        "visual": {"n": 5, "metrics": {"accuracy": 0.25, "ece": None}},
        "audio+visual": {"n": 4, "metrics": {"accuracy": 0.75, "ece": 0.5}},
    },
    "aggregates": {"average": {"accuracy": 0.5, "ece": None}, "worst": {"accuracy": 0.25, "ece": None}},
    "cost": {"train_seconds": 1.5},
}


def picture(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    Figure(figsize=(1, 1)).savefig(folder / "combinations.png")


class Model(LightningModule):
    """As little as has a test metric for a combination, after a fit."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.layer, self.fails = nn.Linear(1, 1), fails

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.fails:
            raise RuntimeError("broken")
        loss = self.layer(batch).mean()
        self.log("train/loss/task", loss, on_step=False, on_epoch=True)
        return loss

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        for name, row in RESULTS["combinations"].items():
            if row:
                self.log(f"test/{name}/accuracy", row["metrics"]["accuracy"])

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), lr=0.1)


def batches() -> DataLoader[Any]:
    return DataLoader(list(ones(2, 1)), batch_size=1)  # type: ignore[arg-type]


def trainer(logger: WandbLogger) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=logger,
        max_epochs=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.slow
def test_an_offline_run_holds_everything(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    picture(folder)
    for seed in (0, 1):  # as a sweep does: one process, two runs
        logger = make(folder)
        logger.log_hyperparams(config(seed))
        lightning = trainer(logger)
        lightning.fit(Model(), batches())
        lightning.test(lightning.lightning_module, batches(), verbose=False)
        logger.log_results(RESULTS, folder, folder / "best.ckpt")
        logger.finalize("success")
        logger.finalize("success")
    first, second = sorted(runs(folder), key=lambda run: run.config["seed"])
    assert first.run.run_id != second.run.run_id

    assert first.history["train/loss/task"] is not None
    assert first.history["test/visual/accuracy"] == 0.25
    assert first.history["test/audio+visual/accuracy"] == 0.75
    table = json.loads(first.file("test/combinations_table").read_text())
    assert table["columns"] == ["combination", "n", "accuracy", "ece"]
    assert table["data"] == [
        ["audio", None, None, None],
        ["visual", 5, 0.25, None],
        ["audio+visual", 4, 0.75, 0.5],
    ]
    assert first.file("test/combinations").read_bytes() == (folder / "combinations.png").read_bytes()
    assert first.summary["test/average/accuracy"] == 0.5
    assert first.summary["test/worst/accuracy"] == 0.25
    assert first.summary["cost/train_seconds"] == 1.5
    assert first.config["method"] == "dmrnet"
    assert first.config["method.kl_weight"] == compose(0).method.kl_weight
    assert first.config["data.run_seed"] == 0
    assert first.exit_code == 0

    assert (first.run.display_name, second.run.display_name) == (
        "dmrnet synthetic seed 0",
        "dmrnet synthetic seed 1",
    )
    assert first.run.job_type == "dmrnet"
    assert first.run.project == "mmrobust"
    assert first.run.run_group == second.run.run_group
    printed = capfd.readouterr()
    lines = [line for line in printed.out.splitlines() if "W&B" in line or "wandb" in line]
    assert len(lines) == 2
    assert f"wandb sync {first.folder.parent}" in lines[0]
    assert "wandb:" not in printed.out + printed.err


@pytest.mark.slow
def test_a_failed_or_forgotten_run_does_not_swallow_the_next(tmp_path: Path) -> None:
    failed = make(tmp_path / "failed")
    failed.log_hyperparams(config(0))
    with pytest.raises(RuntimeError, match="broken"):
        trainer(failed).fit(Model(fails=True), batches())
    forgotten = make(tmp_path / "forgotten", name="mine", group="ours")
    forgotten.log_hyperparams(config(0, "trainer.max_epochs=7"))
    last = make(tmp_path / "last")
    last.log_hyperparams(config(0, "trainer.max_epochs=7"))
    last.finalize("failed")
    (a,), (b,), (c,) = (runs(tmp_path / name) for name in ("failed", "forgotten", "last"))
    assert a.exit_code == b.exit_code == 1
    assert (b.run.display_name, b.run.run_group) == ("mine", "ours")
    assert a.run.run_group != c.run.run_group


@pytest.mark.slow
def test_without_a_connection_the_run_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wandb_run, "CONNECT_SECONDS", 1)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    logger = make(tmp_path)
    logger.log_hyperparams(config(0))
    logger.log_metrics({"val/audio/accuracy": 0.5}, 1)
    logger.finalize("finished")
    (run,) = runs(tmp_path)
    assert run.history["val/audio/accuracy"] == 0.5
    assert "cannot go online" in capsys.readouterr().out


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    picture(tmp_path)
    logger = make(tmp_path, mode="online")
    logger.log_hyperparams(config(0))
    logger.log_results(RESULTS, tmp_path, tmp_path / "best.ckpt")
    logger.finalize("success")
    assert not (tmp_path / "wandb").exists()


def test_a_malformed_key_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    logger = make(tmp_path)
    logger.log_metrics({"val/audio/accuracy": 0.5}, 1)
    logger.finalize("failed")
    (run,) = runs(tmp_path)
    assert run.exit_code == 1
    assert "cannot go online" in capsys.readouterr().out


def test_a_wrong_mode_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sometimes; choose of auto, online"):
        make(tmp_path, mode="sometimes")
