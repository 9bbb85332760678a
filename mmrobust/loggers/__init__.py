"""Loggers of metrics. The targets of conf/logger resolve here and are imported on first access."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmrobust.loggers.metrics_file import MetricsFile as MetricsFile
    from mmrobust.loggers.wandb_logger import WandbLogger as WandbLogger

TARGETS = {"MetricsFile": "metrics_file", "WandbLogger": "wandb_logger"}


def __getattr__(name: str) -> Any:
    if name not in TARGETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{TARGETS[name]}"), name)
