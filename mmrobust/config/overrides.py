"""Overrides of a command line, in Hydra's syntax: their keys, their texts, the values that they list. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException

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


def with_quotes(given: Sequence[str]) -> list[str]:
    """Overrides whose value Hydra's grammar would not read without quotes, like `paths.run=Läufe (1)`, get them."""
    quoted = []
    for text in given:
        key, equals, value = text.partition("=")
        if equals and text[0] != "-" and not set(value) & set("[]{}'\""):
            try:
                parse(text)
            except HydraException:
                text = f"{key}={json.dumps(value, ensure_ascii=False)}"
        quoted.append(text)
    return quoted
