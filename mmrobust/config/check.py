"""Check a command line before anything is computed, and report all problems at once. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmrobust.config.compose import columns_of, compose_config, entries
from mmrobust.config.groups import check_choice, check_packages, group_options, nearest, offered
from mmrobust.config.keys import COMES_WITH, NOT_IN_RECIPE, OF_MODALITIES
from mmrobust.config.overrides import first, parse, quoted, root, text_of, texts, values, with_value
from mmrobust.config.rules import check_config, check_numbers, check_type
from mmrobust.errors import Problems, UserError

CONFIG_ERRORS = (HydraException, OmegaConfBaseException)

# Keys below which users add entries under names of their own.
OPEN = ("metrics", "callbacks")


def check_command_line(overrides: Sequence[str], config_dir: str | None, multirun: bool) -> list[str]:
    """Check every override, then the composed configuration.

    Returns:
        Further overrides that Hydra needs: entries for the modalities that the user's manifest names.

    Raises:
        UserError: the command line has problems; the message lists all of them, with the nearest valid names.
    """
    if config_dir and not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir}: no such folder")
    if config_dir:
        check_packages(config_dir)
    problems: list[str] = []
    given = _parse(overrides, problems)
    options = group_options(config_dir)
    # Prefixes of keys that cannot be checked, because the choice that brings them is wrong.
    doubtful: tuple[str, ...] = ()
    good: list[Override] = []
    for o in given:
        found = []
        if o.is_sweep_override() and not multirun:
            found = [f"{o.input_line!r} lists several values; add -m to run each of them"]
            if o.key_or_group not in options and any(isinstance(value, str) for value in values(o)):
                text = f"{o.key_or_group}={quoted(text_of(o).partition('=')[2])}"
                found[0] += f", or quote one that has a comma: {shlex.quote(text)}"
        elif root(o.key_or_group) == "sweep" and not multirun:
            found = [f"{o.input_line} is about many runs; add -m"]
        elif isinstance(o.value(), RangeSweep) and not texts(o):
            found = [f"{o.input_line} is an empty range: from, below which number, and the step"]
        elif o.key_or_group in options and not o.is_add():
            found = check_choice(o, options[o.key_or_group])
        problems += found
        if not found:
            good.append(o)
        elif o.key_or_group in options:
            doubtful += COMES_WITH.get(o.key_or_group, (f"{o.key_or_group}.",))
    good = [o for o in good if not o.key_or_group.startswith(doubtful)]
    problems += _check_experiment(good, config_dir)
    names, unread = _columns(good, config_dir)
    problems += unread
    # A manifest that cannot be read leaves the same keys unchecked as a wrong choice of the data.
    if unread:
        names, doubtful = [], doubtful + COMES_WITH["data"]
        good = [o for o in good if o.key_or_group not in ("data", "experiment")]
        good = [o for o in good if not o.key_or_group.startswith(doubtful)]
    good = _check_keys(good, options, config_dir, problems, entries(names))
    numbers = [o for o in good if o.is_sweep_override() and o.key_or_group not in options and not o.is_add()]
    # Each combination of these choices is composed and checked, because they decide which other keys are valid.
    kinds = [o for o in good if o not in numbers]
    # No other key depends on a seed, and a sweep may list many, so each value is checked alone.
    seeds = [o for o in numbers if o.key_or_group in NOT_IN_RECIPE]
    problems += [p for o in seeds for value in values(o) for p in check_numbers(value, o.key_or_group)]
    others = [o for o in numbers if o not in seeds]
    for i, job in enumerate(_jobs(kinds)):
        config, _ = _compose([*job, *map(first, numbers)], config_dir, problems)
        for changed in (config, *(_variants(config, others) if i == 0 else ())):
            try:
                found = check_config(changed, [o.key_or_group for o in good])
            except OmegaConfBaseException as error:
                found = [_one_line(error)]
            problems += [p for p in found if p not in problems and not p.startswith(doubtful)]
    if problems:
        raise UserError(str(Problems(dict.fromkeys(problems))))
    return entries(names)


def _parse(overrides: Sequence[str], problems: list[str]) -> list[Override]:
    parsed = []
    for text in overrides:
        try:
            parsed.append(parse(text))
        except HydraException as error:
            key, _, value = text.partition("=")
            problems.append(
                f"{text!r} is not an override (key=value): {str(error).splitlines()[0]}; for a text write "
                + shlex.quote(f"{key}={quoted(value)}")
            )
    return parsed


def _variants(config: DictConfig, given: Sequence[Override], most: int = 64) -> Iterable[DictConfig]:
    """The configuration with each further value of each swept override, one change at a time."""
    for o in given:
        for value in values(o)[1:most]:
            if OmegaConf.select(config, o.key_or_group, default=None) is not None:
                changed = config.copy()
                OmegaConf.update(changed, o.key_or_group, value, merge=False)
                yield changed


def _compose(
    overrides: Sequence[str], config_dir: str | None, problems: list[str]
) -> tuple[DictConfig, list[str]]:
    """Compose; append the overrides that Hydra refuses to `problems` and leave them out.

    Returns:
        The configuration, and the overrides that it was composed of.
    """
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


def _check_experiment(given: Sequence[Override], config_dir: str | None) -> list[str]:
    """Problems of overrides that change the method or data which an experiment fixes."""
    experiment = next((o for o in given if o.key_or_group == "experiment"), None)
    if experiment is None or experiment.is_sweep_override() or experiment.value() is None:
        return []
    choices = _compose([text_of(experiment)], config_dir, [])[0].choices
    return [
        f"experiment={experiment.value()} fixes {o.key_or_group}={choices[o.key_or_group]}; leave out "
        f"{o.input_line}, or leave out the experiment"
        for o in given
        if o.key_or_group in ("method", "data") and str(o.value()) != choices[o.key_or_group]
    ]


def _columns(given: Sequence[Override], config_dir: str | None) -> tuple[list[str], list[str]]:
    """Modality columns of the manifests that the jobs name, and the problems of manifests that cannot be read."""
    about = ("data", "experiment", "paths.data")
    given = [o for o in given if f"{o.key_or_group}.".startswith(tuple(f"{key}." for key in about))]
    names: dict[str, None] = {}
    problems: list[str] = []
    # The default data name all their modalities in conf/.
    if not any(o.key_or_group in about for o in given):
        return [], []
    for job in _jobs([o for o in given if not o.key_or_group.startswith(OF_MODALITIES)]):
        try:
            names |= dict.fromkeys(columns_of(compose_config(job, config_dir)))
        except UserError as error:
            problems.append(str(error))
        except CONFIG_ERRORS:
            # _check_keys reports these.
            pass
    return list(names), problems


# Keys and values


def _check_keys(
    given: Sequence[Override],
    groups: Mapping[str, Sequence[str]],
    config_dir: str | None,
    problems: list[str],
    more: Sequence[str],
) -> list[Override]:
    """Append unknown keys, and values whose type is not that of the key's default, to `problems`.

    Keys exist if the overrides `more` create them.

    Returns:
        The overrides without a problem.
    """
    choices = [o for o in given if o.key_or_group in groups]
    config, kept = _compose([*more, *map(first, choices)], config_dir, problems)
    plain: Any = OmegaConf.to_container(config)
    known, good = {key for key in _flat_keys(plain) if not key.startswith("sweep.space.")}, []
    for o in given:
        key, found = o.key_or_group, []
        # conf/trainer holds every key of the Trainer, so that a new one there is a typing error.
        added = (o.is_add() or o.is_force_add()) and not key.startswith("trainer.")
        if o in choices:
            if o.is_sweep_override() or text_of(o) in kept:
                good.append(o)
            continue
        if key not in known and not added and not key.startswith("hydra"):
            hint = (
                f"; to add one: +{key}=..."
                if root(key) in OPEN
                else offered(key, groups) or nearest(key, known | set(groups))
            )
            found = [f"there is no key {key}{hint}"]
        elif key in known and not o.is_delete():
            default = _default(config, key)
            found = [p for value in values(o) if (p := check_type(key, value, default))]
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


def _jobs(given: Sequence[Override], most: int = 64) -> list[list[str]]:
    """The overrides of each of a sweep's first jobs, about `most` of them."""
    jobs: list[list[str]] = [[]]
    for o in given:
        choices = [with_value(o, text) for text in texts(o)] if o.is_sweep_override() else [text_of(o)]
        jobs = [[*job, choice] for job in jobs for choice in choices][:most] or jobs
    return jobs
