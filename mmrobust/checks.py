"""Checks of a command line: all that is wrong, at once, before anything is computed. Imports no torch."""

from __future__ import annotations

import difflib
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmrobust.config import allowed_prefixes, compose_config, our_hydra, refused, search_path
from mmrobust.errors import UserError

CONFIG_ERRORS = (HydraException, OmegaConfBaseException)

# Keys whose value may be of several types.
ANY_TYPE = (
    "devices",
    "rate",
    "precision",
    "groups",
    "kinds",
    "clarity",
    "variants",
    "combination",
    "fast_dev_run",
)

# Numbers that a run cannot do without, and the least that they may be.
AT_LEAST = {
    "seed": 0,
    "data.seed": 0,
    "missing.seed": 0,
    "data.batch_size": 1,
    "data.workers": 0,
    "trainer.max_epochs": 1,
    "optimizer.lr": 0,
}

# Where keys lie that come with a choice, if it is not the folder named like the group.
COMES_WITH = {
    "data": ("data.", "encoder.", "missing."),
    "experiment": ("data.", "encoder.", "method.", "missing."),
}


def check_command_line(overrides: Sequence[str], config_dir: str | None, multirun: bool) -> None:
    """Check every override, then the composed configuration.

    Raises:
        UserError: everything that is wrong, at once, with the nearest valid names.
    """
    if config_dir and not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir}: no such folder")
    problems: list[str] = []
    given = _parse(overrides, problems)
    options = _group_options(config_dir)
    doubtful: tuple[str, ...] = ()  # keys that nobody can judge, because a choice is wrong
    good: list[Override] = []
    for o in given:
        found = []
        if o.is_sweep_override() and not multirun:
            found = [f"{o.input_line!r} lists several values; add -m to run each of them"]
        elif o.key_or_group in options and not o.is_add():
            found = _check_choice(o, options[o.key_or_group])
        problems += found
        if not found:
            good.append(o)
        elif o.key_or_group in options:
            doubtful += COMES_WITH.get(o.key_or_group, (f"{o.key_or_group}.",))
    good = [o for o in good if not o.key_or_group.startswith(doubtful)]
    problems += _check_experiment(good, config_dir)
    good = _check_keys(good, options, config_dir, problems)
    for job in _jobs(good) if multirun else [[_text(o) for o in good]]:
        config, _ = _compose(job, config_dir, problems)
        try:
            found = check_config(config, [o.key_or_group for o in good])
        except OmegaConfBaseException as error:
            found = [_one_line(error)]
        problems += [p for p in found if p not in problems and not p.startswith(doubtful)]
    if problems:
        problems = list(dict.fromkeys(problems))
        raise UserError("\n".join(f"- {p}" for p in problems) if len(problems) > 1 else problems[0])


def with_quotes(overrides: Sequence[str]) -> list[str]:
    """Overrides whose value Hydra's grammar would not read without quotes, like `paths.run=Läufe (1)`, get them."""
    parser, quoted = OverridesParser.create(), []
    for text in overrides:
        key, equals, value = text.partition("=")
        if equals and not set(value) & set("[]{}'\""):
            try:
                parser.parse_override(text)
            except HydraException:
                text = f"{key}={json.dumps(value, ensure_ascii=False)}"
        quoted.append(text)
    return quoted


def _parse(overrides: Sequence[str], problems: list[str]) -> list[Override]:
    parser, parsed = OverridesParser.create(), []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            problems.append(f"{text!r} is not an override (key=value): {str(error).splitlines()[0]}")
    return parsed


def _text(override: Override) -> str:
    return override.input_line or ""


def _compose(
    overrides: Sequence[str], config_dir: str | None, problems: list[str]
) -> tuple[DictConfig, list[str]]:
    """Compose; overrides that Hydra refuses are reported and left out. Also returns the others."""
    try:
        return compose_config(overrides, config_dir), list(overrides)
    except CONFIG_ERRORS:
        kept: list[str] = []
    for text in overrides:
        try:
            compose_config([*kept, text], config_dir)
            kept.append(text)
        except CONFIG_ERRORS as error:
            problems.append(f"{text} cannot be applied: {_one_line(error)}")
    return compose_config(kept, config_dir), kept


def _one_line(error: Exception) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


# Groups


def _group_options(config_dir: str | None) -> dict[str, list[str]]:
    """The choices of every group."""
    with our_hydra():
        loader = GlobalHydra.instance().config_loader()
        if config_dir:
            loader.get_search_path().append("command-line", search_path(config_dir))
            loader = type(loader)(loader.get_search_path())  # type: ignore[call-arg]
        return {
            group: [name for name in loader.get_group_options(group, ObjectType.CONFIG) if name != "inherit"]
            for group in _groups(loader)
        }


def _groups(loader: ConfigLoader, parent: str = "") -> Iterable[str]:
    for group in loader.list_groups(parent):
        name = f"{parent}/{group}" if parent else group
        if name != "hydra":
            yield name
            yield from _groups(loader, name)


def _check_choice(override: Override, options: Sequence[str]) -> list[str]:
    group, problems = override.key_or_group, []
    for value in _values(override):
        word = "null" if value is None else str(value)
        if word not in options and not override.is_delete() and "glob" not in word:
            hint = nearest(word, options) or f"; choose one of {', '.join(options)}, or leave it out"
            problems.append(f"{group}={word} is not known{hint}")
    return problems


def _check_experiment(given: Sequence[Override], config_dir: str | None) -> list[str]:
    """An experiment fixes its method and data."""
    experiment = next((o for o in given if o.key_or_group == "experiment"), None)
    if experiment is None or experiment.is_sweep_override() or experiment.value() is None:
        return []
    choices = _compose([_text(experiment)], config_dir, [])[0].choices
    return [
        f"experiment={experiment.value()} fixes {o.key_or_group}={choices[o.key_or_group]}; leave out "
        f"{o.input_line}, or leave out the experiment"
        for o in given
        if o.key_or_group in ("method", "data") and str(o.value()) != choices[o.key_or_group]
    ]


# Keys and values


def _check_keys(
    given: Sequence[Override], groups: Iterable[str], config_dir: str | None, problems: list[str]
) -> list[Override]:
    """Report keys that do not exist, and values of another type than the key's default; returns the others."""
    choices = [o for o in given if o.key_or_group in groups]
    first = [
        f"{_text(o).partition('=')[0]}={_values(o)[0]}" if o.is_sweep_override() and _values(o) else _text(o)
        for o in choices
    ]
    config, kept = _compose([text for text in first if "glob(" not in text], config_dir, problems)
    plain: Any = OmegaConf.to_container(config)
    known, good = set(_flat_keys(plain)), []
    for o in given:
        key, found = o.key_or_group, []
        added = (o.is_add() or o.is_force_add()) and not key.startswith(
            "trainer."
        )  # whose keys are all there
        if o in choices:
            if o.is_sweep_override() or _text(o) in kept:
                good.append(o)
            continue
        if key not in known and not added and not key.startswith("hydra"):
            found = [f"there is no key {key}{nearest(key, known | set(groups))}"]
        elif key in known and not o.is_delete():
            default = _default(config, key)
            found = [p for value in _values(o) if (p := _check_type(key, value, default))]
        problems += found
        if not found:
            good.append(o)
    return good


def _flat_keys(node: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for key, child in node.items():
        yield f"{prefix}{key}"
        if isinstance(child, dict):
            yield from _flat_keys(child, f"{prefix}{key}.")


def _default(config: DictConfig, key: str) -> Any:
    try:
        value = OmegaConf.select(config, key, throw_on_missing=False)
    except OmegaConfBaseException:
        return None
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _check_type(key: str, value: Any, default: Any) -> str | None:
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


def _values(override: Override) -> list[Any]:
    """The value, or those of a sweep; none of those that are Hydra's to expand."""
    if not override.is_sweep_override():
        return [override.value()]
    try:
        texts = list(override.sweep_string_iterator())
    except (TypeError, ValueError, HydraException, NotImplementedError):
        return []
    return [OverridesParser.create().parse_override(f"x={text}").value() for text in texts]


def _jobs(given: Sequence[Override], most: int = 64) -> list[list[str]]:
    """The overrides of the first jobs of a sweep."""
    jobs: list[list[str]] = [[]]
    for o in given:
        choices = [_text(o)]
        if o.is_sweep_override():
            prefix = _text(o).partition("=")[0]
            choices = [f"{prefix}={text}" for text in o.sweep_string_iterator()] if _values(o) else []
        jobs = [[*job, choice] for job in jobs for choice in choices] or jobs
    return jobs[:most]


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, by the whole name or its last part."""
    known = sorted(set(known))
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if not close:
        last = {name.rpartition(".")[2]: name for name in known}
        close = [last[n] for n in difflib.get_close_matches(word.rpartition(".")[2], list(last), 3, 0.7)]
    return f"; did you mean {' or '.join(close)}?" if close else ""


# The composed configuration


def modality_names(config: DictConfig) -> list[str]:
    """The modalities that the configuration names: the entries under `encoder`, or m1, m2, ... as many as
    `data.num_modalities` says."""
    names = [str(k) for k, v in config.encoder.items() if isinstance(v, DictConfig) and k != "options"]
    count = config.data.get("num_modalities", len(names))
    return [*names, *(f"m{i + 1}" for i in range(len(names), count))][:count]


def check_config(config: DictConfig, given: Sequence[str] = ()) -> list[str]:
    """What is wrong with a composed configuration; `given` are the keys set by the user."""
    problems = [f"{key} has no value yet; set {key}=..." for key in sorted(OmegaConf.missing_keys(config))]
    if problems:
        return problems
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if "fusion" in given and "fusion" not in plain["method"]:
        problems.append(
            f"method={config.choices.method} takes no fusion; leave out fusion={config.choices.fusion}"
        )
    if plain["selection"] not in ("mean", "last", "paper"):
        problems.append(f"selection={plain['selection']} is not known; choose mean, last or paper")
    problems += _check_ranges(config)
    problems += refused(plain, allowed_prefixes(plain["allow"]))
    problems += [
        f"allow=[{name}]: no part of Python itself can be allowed, since it can do anything; leave it out"
        for name in plain["allow"]
        if name.partition(".")[0] in sys.stdlib_module_names
    ]
    for split in ("train", "test"):
        problems += _check_missing(
            split, plain["missing"][split], modality_names(config), config.choices.data
        )
    return problems


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
