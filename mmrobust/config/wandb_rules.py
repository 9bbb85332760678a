"""What can be wrong with `logger=wandb`. Imports no torch, and wandb only to look at a key."""

from __future__ import annotations

import os
import sys
from functools import cache

from omegaconf import DictConfig

TARGET = "mmrobust.loggers.WandbLogger"
MODES = ("auto", "online", "offline", "disabled", "dryrun")
CHECKPOINTS = ("none", "best")


def check_wandb(config: DictConfig) -> list[str]:
    """What is wrong with `logger=wandb`, in words. A key that cannot be one is wrong where the run must be online;
    otherwise it is told, once, and the runs are offline."""
    ours = config.logger.get("wandb")
    if ours is None or ours.get("_target_") != TARGET:
        return []
    problems = []
    mode = os.environ.get("WANDB_MODE") or ours.mode
    if mode not in MODES:
        problems.append(f"logger.wandb.mode or WANDB_MODE is {mode}; choose of {', '.join(MODES)}")
    if ours.checkpoint not in CHECKPOINTS:
        problems.append(
            f"logger.wandb.checkpoint={ours.checkpoint} is not known; choose {' or '.join(CHECKPOINTS)}"
        )
    key = os.environ.get("WANDB_API_KEY")
    if key is not None and mode in ("auto", "online") and (wrong := _wrong_key(key)):
        text = f"WANDB_API_KEY is not a key of W&B ({wrong}); correct or unset it"
        if mode == "online":
            problems.append(f"{text}, or set logger.wandb.mode=offline")
        else:
            say_once(f"{text}. Until then runs are offline, and can be uploaded later")
    return problems


@cache
def say_once(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@cache
def _wrong_key(key: str) -> str | None:
    """W&B's own words on the form of a key."""
    from wandb.sdk.lib.wbauth import check_api_key

    wrong = check_api_key(key)
    return wrong.rstrip(".") if wrong else None
