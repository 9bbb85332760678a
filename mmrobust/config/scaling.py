"""The learning rate for the batch that an optimizer's step sees. Imports no torch."""

from __future__ import annotations

import math
from typing import Any

from omegaconf import DictConfig, OmegaConf

RULES = {"none": lambda ratio: 1.0, "linear": lambda ratio: ratio, "sqrt": math.sqrt}


def effective_batch(config: DictConfig) -> int:
    """Samples of one optimizer step, over all devices of all nodes."""
    return int(config.data.batch_size) * int(config.trainer.accumulate_grad_batches or 1)


def lr_factor(config: DictConfig) -> float:
    """What `lr_scaling` multiplies the learning rate with; 1 where it is not what it should be, see `check_scaling`."""
    if check_scaling(config) or config.lr_scaling.rule == "none":
        return 1.0
    return RULES[config.lr_scaling.rule](effective_batch(config) / config.lr_scaling.base)


def scale_lr(config: DictConfig) -> None:
    """Scale `optimizer.lr` of a configuration that has just been composed, and so all that refers to it."""
    if (factor := lr_factor(config)) != 1:
        config.optimizer.lr *= factor


def check_scaling(config: DictConfig) -> list[str]:
    """What is wrong with `lr_scaling`."""
    scaling = config.lr_scaling
    if scaling.rule not in RULES:
        return [f"lr_scaling.rule={scaling.rule} is not known; choose {', '.join(RULES)}"]
    if scaling.rule == "none":
        return []
    if not isinstance(scaling.base, int) or isinstance(scaling.base, bool) or scaling.base < 1:
        return [
            f"lr_scaling.rule={scaling.rule} needs lr_scaling.base, the effective batch that optimizer.lr was chosen "
            f"for, and it is {'null' if scaling.base is None else scaling.base}; set it to a number of samples"
        ]
    if not isinstance(OmegaConf.select(config, "optimizer.lr"), int | float):
        return [f"lr_scaling.rule={scaling.rule} scales optimizer.lr, which this optimizer does not have"]
    return []


def describe_optimization(config: DictConfig) -> dict[str, Any]:
    """Of a configuration with its lr scaled: the effective batch and the learning rate, for the result."""
    return {
        "effective_batch": effective_batch(config),
        "lr": OmegaConf.select(config, "optimizer.lr"),
        "lr_scaling": {**config.lr_scaling, "factor": lr_factor(config)},
    }


def tell_optimization(config: DictConfig, world: int) -> list[str]:
    """The same in words, for the log."""
    size, windows = int(config.data.batch_size), int(config.trainer.accumulate_grad_batches or 1)
    text = f"effective batch: {size}"
    if windows > 1:
        text += f" x {windows} accumulated = {size * windows}"
    if world > 1:
        text += f"; {size // world} on each of {world} devices"
    if config.lr_scaling.rule == "none":
        return [text]
    factor, rule = lr_factor(config), config.lr_scaling
    return [
        text,
        f"optimizer.lr: {config.optimizer.lr / factor:.6g} x {factor:.6g} = {config.optimizer.lr:.6g} "
        f"({rule.rule} in the batch, from {rule.base} to {size * windows})",
    ]
