"""Overrides of a command line, in Hydra's syntax: their keys, their texts, the values that they list. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from mmrobust.config.keys import is_text
from mmrobust.errors import Problems, UserError


def parse(text: str) -> Override:
    """Raises: hydra.errors.HydraException: it is no override."""
    override: Override = OverridesParser.create().parse_override(text)
    return override


def key_of(text: str) -> str:
    """The key or group of an override."""
    return text.partition("=")[0].lstrip("+~")


def root(text: str) -> str:
    """The first part of its key or group: `sweep` of `sweep.trials`, `sweep/space`, `+sweep.x=1`."""
    return key_of(text).replace("/", ".").partition(".")[0]


def text_of(override: Override) -> str:
    return override.input_line or ""


def with_value(override: Override, value: str) -> str:
    """The same override with another value, as text."""
    return f"{text_of(override).partition('=')[0]}={value}"


def texts(override: Override) -> list[str]:
    """What an override can become, as text: its value; those that it lists, none where that cannot be; the ends of an
    interval."""
    if not override.is_sweep_override():
        return [text_of(override).partition("=")[2]]
    value: Any = override.value()
    if hasattr(value, "shuffle"):
        value.shuffle = False  # the same every time
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    try:
        return list(override.sweep_string_iterator())
    except (TypeError, ValueError, HydraException, NotImplementedError):
        return []


def values(override: Override) -> list[Any]:
    """The same, as Hydra reads it."""
    if not override.is_sweep_override():
        return [override.value()]
    return [parse(f"x={text}").value() for text in texts(override)]


def first(override: Override) -> str:
    """The override with the first of the values that it lists."""
    found = texts(override) if override.is_sweep_override() else []
    return with_value(override, found[0]) if found else text_of(override)


def as_override(value: Any) -> str:
    """A plain value as Hydra's grammar has it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{as_override(v)}" for key, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


OPEN = ("encoder.options", "encoder.*.options")  # mappings whose keys are the user's
GROWING = ("callbacks", "logger")  # to which the user adds classes


def with_pluses(given: Sequence[str]) -> list[str]:
    """Overrides of mappings that are open by nature need no +: `encoder.options={depth: 3}`, and a callback or logger
    of the user's, `callbacks.mine={_target_: ...}` or `callbacks.mine._target_=...`."""
    own = [f"{key_of(text).removesuffix('._target_')}" for text in given if "_target_" in text]
    own = [
        key for key in own if key.count(".") == 1 and key.startswith(tuple(f"{name}." for name in GROWING))
    ]

    def is_open(key: str) -> bool:
        return any(fnmatch(key, pattern) for pattern in OPEN) or any(
            key == name or key.startswith(f"{name}.") for name in own
        )

    return [f"++{text}" if text[:1] not in "+~" and is_open(key_of(text)) else text for text in given]


WITHOUT_EFFECT = {  # keys of Hydra's that other projects use, and ours
    "hydra.run.dir": "paths.run=<folder> names a run's folder, paths.outputs=<folder> where all go",
    "hydra.job.chdir": "a run stays in the folder where it was started, and finds its own in paths.run",
}


def refuse_without_effect(given: Sequence[str]) -> None:
    """Raises: UserError: a key of Hydra's would do nothing here."""
    found = [
        f"{text} has no effect here: {WITHOUT_EFFECT[k]}"
        for text in given
        if (k := key_of(text)) in WITHOUT_EFFECT
    ]
    if found:
        raise UserError(str(Problems(found)))


def quoted(value: str) -> str:
    """A text as Hydra's grammar has it in quotes."""
    return QuotedString(text=value, quote=Quote.double).with_quotes()


def with_quotes(given: Sequence[str], multirun: bool = False) -> list[str]:
    """Overrides whose value Hydra's grammar would not read without quotes, like `paths.run=Läufe (1)`, get them; paths and
    names always: `paths.outputs=2024_01`, `paths.run=a,b`.

    Args:
        given: overrides, and other words of a command line.
        multirun: whether a comma lists several values.
    """
    return [_with_quotes(text, multirun) for text in given]


def _with_quotes(text: str, multirun: bool) -> str:
    key, equals, value = text.partition("=")
    if not equals or text[0] == "-":
        return text
    if is_text(key.lstrip("+")):
        meant = (
            value == "null"
            or "${" in value
            or (value[:1] in "'\"" and value[-1:] == value[:1] and len(value) > 1)
        )
        listed = multirun and ("," in value or value.endswith(")"))
        return text if meant or listed else f"{key}={quoted(value)}"
    if set(value) & set("[]{}'\""):
        return text
    try:
        parse(text)
    except HydraException:
        return f"{key}={quoted(value)}"
    return text


def with_values(config: DictConfig, given: Sequence[str]) -> DictConfig:
    """The configuration with values of the form key=value, read as YAML reads them, paths and names as
    typed."""
    read = OmegaConf.from_dotlist([text for text in given if not is_text(text.partition("=")[0])])
    config = cast(DictConfig, OmegaConf.merge(config, read))
    for key, _, value in (text.partition("=") for text in given):
        if is_text(key):
            OmegaConf.update(config, key, None if value == "null" else value.strip("'\""), force_add=True)
    return config
