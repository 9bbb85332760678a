"""One table of the configuration's keys: what holds for a key beyond its default in conf/. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Key:
    """What holds for one key, or for all keys below it.

    Args:
        hashed: whether the key may change the numbers of a run, so that it belongs to the run's hash.
        choices: the values that the key may have; if empty, it may have any.
        typed: whether a value must be of the default's type.
        resume: whether an interrupted run may go on with another value.
        evaluate: whether a trained run may be evaluated with another value.
        text: whether the value is a path or a name: it is quoted, so that Hydra's grammar cannot change it.
    """

    hashed: bool = True
    choices: tuple[Any, ...] = ()
    typed: bool = True
    resume: bool = False
    evaluate: bool = False
    text: bool = False


# Messages list keys in this order. A star in a name matches any group.
KEYS = {
    "paths": Key(hashed=False),
    "paths.data": Key(text=True),
    "paths.outputs": Key(text=True, hashed=False, resume=True),
    "paths.cache": Key(text=True, hashed=False, resume=True, evaluate=True),
    "paths.run": Key(text=True),
    "choices": Key(hashed=False),
    "logger": Key(hashed=False),
    "logger.wandb.project": Key(text=True),
    "logger.wandb.entity": Key(text=True),
    "logger.wandb.name": Key(text=True),
    "logger.wandb.group": Key(text=True),
    "logger.wandb.job_type": Key(text=True),
    "callbacks.learning_rate": Key(hashed=False),
    "callbacks.gradient_norm": Key(hashed=False),
    "data.root": Key(hashed=False, resume=True, evaluate=True, text=True),
    # The hash holds the table's content (data.content), so that a renamed table is the same data.
    "data.manifest": Key(hashed=False, resume=True, evaluate=True, text=True),
    "data.batch_size": Key(evaluate=True),
    "data.workers": Key(hashed=False, resume=True, evaluate=True),
    "data.cache": Key(hashed=False),
    # It follows from values that are hashed.
    "data.inferred": Key(hashed=False),
    "data.corrupt": Key(choices=("error", "skip")),
    "launch": Key(hashed=False),
    "trainer.accelerator": Key(evaluate=True),
    "trainer.precision": Key(typed=False, evaluate=True),
    "trainer.compile": Key(typed=False, choices=(False, True, "default", "reduce-overhead", "max-autotune")),
    "trainer.enable_progress_bar": Key(hashed=False, resume=True),
    "trainer.enable_model_summary": Key(hashed=False, resume=True),
    "trainer.log_every_n_steps": Key(hashed=False),
    "trainer.profiler": Key(hashed=False),
    "keep": Key(hashed=False, choices=("best", "last", "all", "none"), resume=True),
    "keep_masks": Key(hashed=False, resume=True, evaluate=True),
    "threads": Key(hashed=False, evaluate=True),
    "init": Key(choices=("default", "kaiming", "xavier", "truncated_normal")),
    "selection": Key(choices=("mean", "last", "paper")),
    "test_rates": Key(hashed=False),
    "combinations": Key(typed=False, evaluate=True),
    "max_combinations": Key(hashed=False),
    "plan": Key(hashed=False),
    "study": Key(hashed=False),
    "study.name": Key(text=True),
    "study.storage": Key(text=True, hashed=False, resume=True),
    "allow": Key(hashed=False, resume=True),
    "sweep": Key(hashed=False),
    "sweep.name": Key(text=True),
    "sweep.storage": Key(text=True),
    "method.teacher.run": Key(text=True),
    "data.file": Key(text=True),
    "encoder.weights": Key(text=True),
    "encoder.*.weights": Key(text=True),
    "*.devices": Key(typed=False),
    "*.rate": Key(typed=False),
    "*.groups": Key(typed=False),
    "*.kinds": Key(typed=False),
    "*.clarity": Key(typed=False),
    "*.variants": Key(typed=False),
    "*.combination": Key(typed=False),
    "*.class_weights": Key(typed=False),
    "*.fast_dev_run": Key(typed=False),
}

NOT_IN_HASH = tuple(name for name, key in KEYS.items() if not key.hashed)
ON_RESUME = tuple(name for name, key in KEYS.items() if key.resume)
ON_EVALUATE = tuple(name for name, key in KEYS.items() if key.evaluate)

# Besides NOT_IN_HASH: keys in which the runs of one row of a report may differ.
NOT_IN_RECIPE = ("seed", "data.run_seed", "method.seed", "metrics")

# The keys that a choice of this group brings with it. For groups not named here, these are the keys below `<group>.`.
COMES_WITH = {
    "data": ("data.", "encoder.", "missing."),
    "method": ("method.", "noise."),
    "experiment": ("data.", "encoder.", "method.", "missing.", "noise."),
    "missing/pattern": ("missing.",),
    "noise/pattern": ("noise.",),
}

# Prefixes of the keys and groups that belong to a single modality.
OF_MODALITIES = ("encoder.", "encoder@", "data.modalities.", "data/modality@")

# Keys below `encoder` that are not the entry of a modality.
OF_ENCODERS = ("options", "decoder")


def is_typed(key: str) -> bool:
    """Whether a value of this key must be of its default's type."""
    return all(entry.typed for name, entry in KEYS.items() if fnmatch(key, name))


@cache
def is_text(key: str) -> bool:
    """Whether the value of this key is a path or a name."""
    return any(entry.text for name, entry in KEYS.items() if fnmatch(key, name))


def encoder_entries(encoder: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Modality name -> its entry below `encoder`."""
    return {
        str(name): entry
        for name, entry in encoder.items()
        if isinstance(entry, Mapping) and name not in OF_ENCODERS
    }


def either(choices: Sequence[Any]) -> str:
    """The choices as a phrase, with booleans as in YAML: `false, true or default`."""
    words = [str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in choices]
    return " or ".join([", ".join(words[:-1]), words[-1]])
