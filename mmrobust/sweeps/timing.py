"""What a run takes, from a few timed batches of each kind. Imports torch only when it measures."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmrobust.config.build import construct
from mmrobust.config.identity import save_run_config
from mmrobust.evaluation.results import is_complete

BATCHES = 3  # that are timed; the first warms up


@dataclass(frozen=True)
class Cost:
    """What one run takes: seconds and bytes."""

    train: float
    validation: float
    test: float
    checkpoint: int
    predictions: int

    @property
    def seconds(self) -> float:
        return self.train + self.validation + self.test


def measure(config: DictConfig, config_dir: str | None) -> Cost:
    """Train, validate and test a few batches in a folder that is removed, on one device.

    A teacher that is still to be trained is stood in for by one of as few batches.
    """
    with tempfile.TemporaryDirectory(prefix="mmrobust-plan-") as folder:
        config = config.copy()
        OmegaConf.set_struct(config, False)
        if config.method.get("teacher") and config.method.teacher.run is None:
            from mmrobust.training.teacher_run import teacher_config

            teacher = teacher_config(config, config_dir)
            there = Path(teacher.paths.run)
            if not is_complete(there):
                there = Path(folder) / "teacher"
                _measure(teacher, there)
            config.method.teacher.run = str(there)
        return _measure(config, Path(folder) / "run")


def _measure(config: DictConfig, folder: Path) -> Cost:
    from mmrobust.evaluation.results import write_predictions
    from mmrobust.training.devices import count_devices
    from mmrobust.training.session import begin, open_data, open_training

    folder.mkdir()
    devices = count_devices(config)
    limits = {key: config.trainer[f"limit_{key}_batches"] for key in ("train", "val", "test")}
    epochs, steps = config.trainer.max_epochs, config.trainer.max_steps
    config.paths.run, config.logger, config.callbacks = str(folder), {}, {}
    # Steps take as long, and a first value that diverges ends nothing.
    config.optimizer.lr = 0.0
    config.data.batch_size = max(config.data.batch_size // devices, 1)
    config.trainer.update(
        devices=1, num_nodes=1, strategy="auto", compile=False, enable_progress_bar=False, enable_model_summary=False,
        max_steps=-1, min_steps=None, min_epochs=None, max_time=None, check_val_every_n_epoch=1, val_check_interval=None,
    )  # fmt: skip
    if "inferred" in config.data and config.data.inferred is None:
        config.data.inferred = construct(config.data).infer()
    save_run_config(config, folder)
    begin(folder, config)
    data = open_data(config)
    counts = {
        "train": _limited(len(data.loader("train", shuffle=True)), limits["train"]),
        "val": _limited(len(data.loader(data.validation_split)), limits["val"])
        if data.validation_split in data.splits
        else 0,
        "test": _limited(len(data.loader("test")), limits["test"]),
    }
    for key, count in counts.items():
        config.trainer[f"limit_{key}_batches"] = min(count, BATCHES)
    times = batch_times()
    run = open_training(config, folder, data, [times])
    run.trainer.fit(run.method, datamodule=data)
    run.trainer.test(run.method, datamodule=data, verbose=False)
    each = times.seconds
    if epochs == -1 or 0 < steps < epochs * counts["train"]:
        epochs = math.ceil(max(steps, 0) / max(counts["train"], 1))
    predictions = run.method.results.predictions
    written = 0 if predictions is None else write_predictions(folder, predictions).stat().st_size
    files = [path.stat().st_size for path in (folder / "checkpoints").glob("*.ckpt")]
    return Cost(
        train=epochs * counts["train"] * each("train"),
        validation=epochs // config.trainer.check_val_every_n_epoch * counts["val"] * each("val"),
        test=counts["test"] * each("test"),
        checkpoint=max(files, default=0),
        predictions=round(written * counts["test"] / max(min(counts["test"], BATCHES), 1)),
    )


def batch_times() -> Any:
    """A callback that ends training after one epoch; its `seconds("train")` is a batch's, its reading included."""
    from lightning import Trainer
    from lightning.pytorch.callbacks import Callback

    class BatchTimes(Callback):
        def __init__(self) -> None:
            self.at: dict[str, list[float]] = {"train": [], "val": [], "test": []}

        def note(self, part: str) -> None:
            self.at[part].append(time.perf_counter())

        def seconds(self, part: str) -> float:
            between = [after - before for before, after in pairwise(self.at[part])]
            return statistics.median(between[1:] or between) if between else 0.0

        def on_train_epoch_start(self, *_: Any) -> None:
            self.note("train")

        def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.should_stop = True

        def on_train_batch_end(self, *_: Any) -> None:
            self.note("train")

        def on_validation_epoch_start(self, *_: Any) -> None:
            self.note("val")

        def on_validation_batch_end(self, *_: Any) -> None:
            self.note("val")

        def on_test_epoch_start(self, *_: Any) -> None:
            self.note("test")

        def on_test_batch_end(self, *_: Any) -> None:
            self.note("test")

    return BatchTimes()


def _limited(count: int, limit: int | float | None) -> int:
    """Batches that Lightning takes with `limit_..._batches`."""
    if limit is None:
        return count
    return min(count, limit) if isinstance(limit, int) else int(count * limit)
