"""Arguments of Lightning's Trainer that would not do here what they say, or never end. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def check_lengths(node: Mapping[str, Any]) -> list[str]:
    """What is wrong with a training without a last epoch, of a configuration that is not resolved: whether it ends, and
    what would last as many epochs."""
    trainer = node["trainer"]
    if trainer["max_epochs"] != -1:
        return []
    stops = any(
        "EarlyStopping" in str((x or {}).get("_target_")) for x in (node.get("callbacks") or {}).values()
    )
    problems = []
    if trainer.get("max_steps", -1) == -1 and not trainer.get("max_time") and not stops:
        problems.append(
            "trainer.max_epochs=-1 never ends; set trainer.max_steps, trainer.max_time, or callbacks=early_stopping"
        )
    return problems + [
        f"schedule.{key} is trainer.max_epochs=-1, which is no length; set schedule.{key} to a number of epochs, trainer.max_epochs "
        "to one that training ends with, or take schedule=constant"
        for key, value in (node.get("schedule") or {}).items()
        if value == "${trainer.max_epochs}"
    ]


def check_trainer(trainer: Mapping[str, Any]) -> list[str]:
    """Arguments of Lightning's that would not do what they say here."""
    problems = []
    devices = trainer.get("devices")
    if type(devices) is int and devices < 1 and devices != -1:
        problems.append(
            f"trainer.devices={devices} is no number of devices; take 1 or more, -1 for all, or a list of them"
        )
    if trainer.get("overfit_batches"):
        problems.append("trainer.overfit_batches replaces our sampler; use trainer.limit_train_batches")
    if trainer.get("limit_test_batches") == 0:
        problems.append("trainer.limit_test_batches=0 leaves nothing to evaluate")
    if trainer.get("limit_train_batches") == 0:
        problems.append("trainer.limit_train_batches=0 leaves nothing to train on")
    if trainer.get("max_epochs") == 0:
        problems.append("trainer.max_epochs=0 is below 1")
    if trainer.get("max_steps") == 0:
        problems.append("trainer.max_steps=0 trains nothing; set it to at least 1, or to -1 for no limit")
    if trainer.get("sync_batchnorm") and trainer.get("accelerator") == "cpu":
        problems.append(
            "trainer.sync_batchnorm=true needs GPUs; leave it out, or take encoder.norm=group, which does not look at "
            "the batch"
        )
    if trainer.get("fast_dev_run") and trainer.get("strategy") == "fsdp":
        problems.append(
            "trainer.fast_dev_run saves no checkpoint, which trainer=fsdp evaluates; use trainer.max_steps"
        )
    if str(trainer.get("precision")) in ("bf16-true", "16-true"):
        problems.append(
            f"trainer.precision={trainer['precision']} would round what methods count; use bf16-mixed"
        )
    return problems
