"""What can be wrong with a run's data, method and what watches it, found before processes are started for it."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from mmrobust.training.monitors import check_monitors
from mmrobust.training.session import build_method, open_data
from mmrobust.training.terminal import step
from mmrobust.training.trainer import build_callbacks


def rehearse(config: DictConfig) -> None:
    """Read the data's index and build the method, as every rank will.

    Raises:
        UserError: what a rank would raise, once.
    """
    step(f"checking {config.choices.data} and {config.choices.method} before the processes are started ...")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the ranks' log says it
    try:
        data = open_data(config)
        data.train_dataloader()
        method = build_method(config, data.spec)
        check_monitors(build_callbacks(config), method, validates=data.validation_split in data.splits)
    finally:
        logging.disable(before)
