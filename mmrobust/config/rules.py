"""Whether the values of a composed configuration can be, one by one and together. Imports no torch."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmrobust.config.build import classes_in, refused
from mmrobust.config.keys import KEEP
from mmrobust.config.scaling import check_scaling
from mmrobust.config.trust import trusted
from mmrobust.config.wandb_rules import check_wandb

# Keys whose value may be of several types.
ANY_TYPE = (
    "devices",
    "compile",
    "rate",
    "precision",
    "groups",
    "kinds",
    "clarity",
    "variants",
    "combination",
    "class_weights",
    "fast_dev_run",
)

# Numbers that a run cannot do without, and the least that they may be.
AT_LEAST = {
    "seed": 0,
    "data.seed": 0,
    "missing.seed": 0,
    "noise.seed": 0,
    "data.batch_size": 1,
    "data.workers": 0,
    "launch.jobs_per_device": 1,
    "trainer.num_nodes": 1,
    "trainer.max_epochs": 1,
    "trainer.log_every_n_steps": 1,
    "optimizer.lr": 0,
    "sweep.trials": 1,
    "sweep.parallel": 1,
    "sweep.seed": 0,
    "sweep.startup_trials": 0,
    "sweep.startup_epochs": 0,
}

MOST = 2**63 - 1  # that a number may be

# Rules for initial weights: those of `models.initialization`, which would import torch.
INIT = ("default", "kaiming", "xavier", "truncated_normal")

# Ranges of the numbers of a noise protocol.
NOISE_RANGES = {"level": (0, 11), "probability": (0, 1), "density": (0, 1), "start": (0, 1)}


def modality_names(config: DictConfig) -> list[str]:
    """The modalities that the configuration names: the entries under `encoder`, or as many as `data.num_modalities`
    says of what `data.names` has for the task, and of m1, m2, ..."""
    if "num_modalities" not in config.data:
        entries = [str(k) for k, v in config.encoder.items() if isinstance(v, DictConfig)]
        return [name for name in entries if name not in ("options", "decoder")]
    named = list((config.data.get("names") or {}).get(config.data.get("task")) or [])
    count = config.data.num_modalities
    return [*named, *(f"m{i + 1}" for i in range(len(named), count))][:count]


def check_config(config: DictConfig, given: Sequence[str] = ()) -> list[str]:
    """What is wrong with a composed configuration; `given` are the keys set by the user."""
    unresolved: Any = OmegaConf.to_container(config)  # what refers to a missing value is not to be set itself
    problems = [f"{key} has no value yet; set {key}=..." for key in sorted(_missing(unresolved))]
    if problems:
        return problems
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if "fusion" in given and "fusion" not in plain["method"]:
        problems.append(
            f"method={config.choices.method} takes no fusion; leave out fusion={config.choices.fusion}"
        )
    if plain["selection"] not in ("mean", "last", "paper"):
        problems.append(f"selection={plain['selection']} is not known; choose mean, last or paper")
    if plain["init"] not in INIT:
        problems.append(f"init={plain['init']} is not known; choose {', '.join(INIT)}")
    if plain["keep"] not in KEEP:
        problems.append(f"keep={plain['keep']} is not known; choose {', '.join(KEEP)}")
    rates = plain["test_rates"]
    if not isinstance(rates, list) or not all(type(r) in (int, float) and 0 <= r <= 1 for r in rates):
        problems.append(f"test_rates={rates} is no list of rates in [0, 1]; write test_rates=[0.0,0.3,0.6]")
    if plain["data"].get("corrupt", "error") not in ("error", "skip"):
        problems.append(f"data.corrupt={plain['data']['corrupt']} is not known; choose error or skip")
    problems += _check_ranges(config) + _check_trainer(plain["trainer"]) + check_scaling(config)
    problems += refused(plain) + check_wandb(config)
    if by_file := sorted({*plain["allow"]} - {*trusted()}):
        problems.append(
            f"allow=[{','.join(by_file)}] is set by a file; whom you trust is for the command line to say"
        )
    problems += [
        f"allow=[{name}]: no part of Python itself can be allowed, since it can do anything; leave it out"
        for name in plain["allow"]
        if name.partition(".")[0] in sys.stdlib_module_names
    ]
    roots = {target.partition(".")[0] for _, target in classes_in(plain)} & {*plain["allow"]}
    problems += [
        f"allow=[{name}]: there is no module {name}; if it is yours, put its folder on PYTHONPATH"
        for name in sorted(roots)
        if name not in sys.modules and importlib.util.find_spec(name) is None
    ]
    for split in ("train", "test"):
        problems += _check_missing(
            split, plain["missing"][split], modality_names(config), config.choices.data
        )
        problems += _check_noise(split, plain["noise"][split])
    return problems


def _missing(node: Any, path: str = "") -> Iterator[str]:
    """Keys without a value."""
    if isinstance(node, Mapping):
        for key, child in node.items():
            yield from _missing(child, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        for i, child in enumerate(node):
            yield from _missing(child, f"{path}[{i}]")
    elif node == "???":
        yield path


def _check_ranges(config: DictConfig) -> list[str]:
    problems = []
    for key, least in AT_LEAST.items():
        value = OmegaConf.select(config, key, default=least)
        if key == "trainer.max_epochs" and value == -1:
            continue
        if value is None or isinstance(value, str) or not math.isfinite(value):
            problems.append(
                f"{key}={'null' if value is None else value} is not a number; set it to at least {least}"
            )
        elif value < least:
            problems.append(f"{key}={value} is below {least}")
        elif value > MOST:
            problems.append(f"{key}={value} is above {MOST}")
    plain: Any = OmegaConf.to_container(config, resolve=True)
    problems += [f"{key}=nan is not a number; set it to one" for key in _not_numbers(plain)]
    for key in ("paths.data", "paths.outputs", "paths.cache"):
        if not OmegaConf.select(config, key):
            problems.append(f"{key} names no folder; give one, or leave it out")
    if config.paths.run == "":
        problems.append("paths.run= names no folder; give one, or leave it out")
    return problems


def _not_numbers(node: Any, path: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, child in node.items():
            yield from _not_numbers(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, child in enumerate(node):
            yield from _not_numbers(child, f"{path}[{i}]")
    elif isinstance(node, float) and math.isnan(node):
        yield path


def _check_trainer(trainer: Mapping[str, Any]) -> list[str]:
    """Arguments of Lightning's that would not do what they say here."""
    problems = []
    if trainer.get("overfit_batches"):
        problems.append("trainer.overfit_batches replaces our sampler; use trainer.limit_train_batches")
    if trainer.get("limit_test_batches") == 0:
        problems.append("trainer.limit_test_batches=0 leaves nothing to evaluate")
    if trainer.get("compile") not in (False, True, "default", "reduce-overhead", "max-autotune"):
        problems.append(
            f"trainer.compile={trainer.get('compile')} is not known; choose false, true, default, reduce-overhead or "
            "max-autotune"
        )
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


def _check_missing(split: str, protocol: Mapping[str, Any], names: Sequence[str], data: str) -> list[str]:
    rates, combination = protocol.get("rate", 0), protocol.get("combination", [])
    if not isinstance(combination, list):
        return [f"missing.{split}.combination={combination} is not a list; write [{combination}]"]
    problems = []
    for label, rate in rates.items() if isinstance(rates, dict) else [("rate", rates)]:
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 <= rate <= 1:
            problems.append(f"missing.{split}.rate: {label}={rate} is not in [0, 1]")
    used = [*(rates if isinstance(rates, dict) else ()), *combination]
    return problems + [
        f"missing.{split} names the modality {m!r}; {data} has {', '.join(names)}"
        for m in used
        if names and m not in names
    ]


def _check_noise(split: str, protocol: Mapping[str, Any]) -> list[str]:
    problems = []
    for key, (low, high) in NOISE_RANGES.items():
        value = protocol.get(key, low)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            problems.append(f"noise.{split}.{key}={value} is not in [{low}, {high}]")
    if problems or not protocol.get("start"):
        return problems
    if split == "test":
        return ["noise.test.start: a test has no epochs that could stay clean; set noise.test.start=0"]
    if protocol["epochs"] < 1:
        return [
            f"noise.train.epochs={protocol['epochs']} has no share that could stay clean; set trainer.max_epochs "
            "or noise.train.epochs to a number, or noise.train.start=0"
        ]
    return []


def check_type(key: str, value: Any, default: Any) -> str | None:
    """What is wrong with a value of another type than the key's default."""
    interpolated = isinstance(value, str) and "${" in value
    if default is None or value is None or key.rpartition(".")[2] in ANY_TYPE or interpolated:
        return None
    kinds: dict[Any, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        list: f"a list, like [{value}]",
        dict: "a dictionary, like {key: value}",
    }
    kind = next((k for k in kinds if isinstance(default, k)), None)
    fits = kind is None or isinstance(value, (int, float) if kind is float else kind)
    if isinstance(value, bool) and kind in (int, float):
        fits = False
    return None if fits else f"{key}={value} is not {kinds[kind]} (default: {default})"
