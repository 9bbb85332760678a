"""Whether the values of a composed configuration can be, one by one and together. Imports no torch."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmrobust.config.build import classes_in, refused
from mmrobust.config.keys import KEYS, either, encoder_entries, is_typed
from mmrobust.config.overrides import with_values
from mmrobust.config.ranges import LARGEST, RANGES, may_be_null, range_of
from mmrobust.config.scaling import check_scaling
from mmrobust.config.trainer_rules import check_lengths, check_trainer
from mmrobust.config.trust import trusted
from mmrobust.config.wandb_rules import check_wandb
from mmrobust.data.effects import idle_keys
from mmrobust.errors import Problems, UserError

# Modalities, of whose combinations a sample may be evaluated: they are counted up one by one.
MOST_SAMPLED = 16


def modality_names(config: DictConfig) -> list[str]:
    """The modalities that the configuration names: `data.views`, or the entries under `encoder`, or as many as
    `data.num_modalities` says of what `data.names` has for the task, and of m1, m2, ..."""
    if views := config.data.get("views"):
        return list(views)
    if "num_modalities" not in config.data:
        return list(encoder_entries(config.encoder))
    named = list((config.data.get("names") or {}).get(config.data.get("task")) or [])
    # more are refused, and not to be listed
    count = min(config.data.num_modalities, int(RANGES["data.num_modalities"].most))
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
    rates = plain["test_rates"]
    if not isinstance(rates, list) or not all(type(r) in (int, float) and 0 <= r <= 1 for r in rates):
        problems.append(f"test_rates={rates} is no list of rates in [0, 1]; write test_rates=[0.0,0.3,0.6]")
    problems += _check_combinations(config) + _check_folders(config)
    problems += idle_keys(config.choices.data, plain["data"], given)
    problems += _check_choices(config) + check_numbers(unresolved)
    problems += check_lengths(unresolved) + check_trainer(plain["trainer"]) + check_scaling(config)
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


def with_checked(config: DictConfig, given: Sequence[str]) -> DictConfig:
    """The configuration of a run with values of the form key=value, see `with_values`.

    Raises:
        UserError: one of them cannot be.
    """
    new, problems = with_values(config, given), Problems()
    for key in (text.partition("=")[0] for text in given):
        value = OmegaConf.select(new, key)
        before = OmegaConf.select(config, key)
        wrong_type = check_type(key, value, before)
        problems += [wrong_type] if wrong_type else check_numbers(value, key)
    problems += _check_choices(new) + _check_combinations(new)
    if problems:
        raise UserError(str(problems))
    return new


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


def _check_choices(config: DictConfig) -> list[str]:
    problems = []
    for name, key in KEYS.items():
        value = OmegaConf.select(config, name, default=key.choices[0]) if key.choices else None
        if key.choices and value not in key.choices:
            problems.append(f"{name}={value} is not known; choose {either(key.choices)}")
    return problems


def check_numbers(node: Any, key: str = "", path: str = "") -> list[str]:
    """Numbers that cannot be, and what is no number where one is needed; `path` is the key with places in lists."""
    path = path or key
    if isinstance(node, Mapping):
        return [
            p for name, x in node.items() for p in check_numbers(x, f"{key}.{name}" if key else str(name))
        ]
    if isinstance(node, list):
        return [p for i, x in enumerate(node) for p in check_numbers(x, key, f"{path}[{i}]")]
    numbers = range_of(key)
    if isinstance(node, bool) or not isinstance(node, int | float):
        # null may be the default, and names may be in a list; references are looked at where they lead
        wrong = isinstance(node, bool) or (isinstance(node, str) and "${" not in node and path == key)
        return [f"{path}={str(node).lower()} is not a number"] if numbers and wrong else []
    if not math.isfinite(node):
        return [f"{path}={node} is not a number" if math.isnan(node) else f"{path}={node} is not finite"]
    if isinstance(node, int) and abs(node) > LARGEST and (numbers is None or node < 0):
        return [f"{path}={node} is beyond {LARGEST}, the largest whole number there is"]
    how = numbers.outside(node) if numbers else None
    return [f"{path}={node} {how}"] if how else []


def _check_folders(config: DictConfig) -> list[str]:
    """Whether those that a run needs have names; without `paths.run`, the run names its own."""
    unnamed = [
        key for key in ("paths.data", "paths.outputs", "paths.cache") if not OmegaConf.select(config, key)
    ]
    unnamed += ["paths.run"] if config.paths.run == "" else []
    return [f"{key} names no folder; give one, or leave it out" for key in unnamed]


def _check_combinations(config: DictConfig) -> list[str]:
    """Whether there are too many, of which each is evaluated."""
    count, wanted = len(modality_names(config)), config.combinations
    if wanted != "all":
        if type(wanted) is not int:
            return [f"combinations={wanted} is not known; choose all, or a number of them"]
        if count > MOST_SAMPLED:
            return [
                f"{config.choices.data} has {count} modalities, of whose combinations no sample is drawn; take at most {MOST_SAMPLED}"
            ]
        if wanted < (always := min(2 * count + 1, 2**count - 1)):
            return [
                f"combinations={wanted} is below {always}: the single modalities, those that lack one, and the full one are in "
                "every sample"
            ]
        return []
    if config.max_combinations is None or 2**count - 1 <= config.max_combinations:
        return []
    return [
        f"{config.choices.data} has {count} modalities, that is {2**count - 1} combinations, more than "
        f"max_combinations={config.max_combinations}; take fewer modalities, evaluate a sample of them "
        "(combinations=100), or raise it: each one is evaluated for every sample, in every validation"
    ]


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
    if not protocol.get("start"):
        return []
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
    if default is None or not is_typed(key) or interpolated:
        return None
    if value is None and not (isinstance(default, int | float | list) and not may_be_null(key)):
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
    return (
        None
        if fits
        else f"{key}={'null' if value is None else value} is not {kinds[kind]} (default: {default})"
    )
