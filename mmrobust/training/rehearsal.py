"""What can be wrong with a run's data, method and what watches it, found before processes are started for it."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from mmrobust.config.build import construct
from mmrobust.data.base import DataModule
from mmrobust.training.checkpoints import build_method
from mmrobust.training.monitors import check_monitors
from mmrobust.training.terminal import step


def rehearse(config: DictConfig) -> None:
    """Read the data's index and build the method, as every rank will.

    Raises:
        UserError: what a rank would raise, once.
    """
    step(f"checking {config.choices.data} and {config.choices.method} before the processes are started ...")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the ranks' log says it
    try:
        data: DataModule = construct(config.data)
        data.validation_split = "test" if config.selection == "paper" else "val"
        data.setup()
        data.train_dataloader()
        method = build_method(config, data.spec)
        watching = [construct(callback) for callback in (config.get("callbacks") or {}).values() if callback]
        check_monitors(watching, method, validates=data.validation_split in data.splits)
    finally:
        logging.disable(before)
