"""From `_target_` to an object, inside the allowed packages. Imports no torch."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from mmrobust.config.keys import encoder_entries
from mmrobust.errors import UserError

# Where a `_target_` may lie. Not all of torch: torch.hub runs what it downloads.
ALLOWED = (
    "mmrobust.",
    "torch.optim.",
    "torch.nn.",
    "torchvision.",
    "torchmetrics.",
    "timm.",
    "lightning.pytorch.",
    "albumentations.",
)


def construct(node: DictConfig, **arguments: Any) -> Any:
    """Build what `_target_` names. Unlike with Hydra's own function alone, arguments that are objects stay
    what they are, and an error in the constructor stays itself.

    Raises:
        UserError: a class outside the allowed packages, which is not imported; keys that it does not take.
    """
    plain: Any = OmegaConf.to_container(node, resolve=True)
    allowed = allowed_prefixes(OmegaConf.select(node._get_root(), "allow", default=()))
    if problems := refused(plain, allowed):
        raise UserError("; ".join(problems))
    for key, target in classes_in(plain):
        if not key.endswith("_target_"):
            continue
        # mmrobust.run.os.system begins well, too
        try:
            found = get_object(target)
        except ImportError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[-1]
            raise UserError(
                f"{key}={target} cannot be imported: {reason}; if it is yours, put its folder on PYTHONPATH"
            ) from error
        owner = getattr(found, "__module__", None) or type(found).__module__
        if not f"{owner}.".startswith(allowed):
            raise UserError(f"{key}={target} leads to {owner}, outside the packages that may be used")
    build = instantiate(node, _partial_=True, _convert_="all")
    try:
        for name, part in build.keywords.items():
            if isinstance(part, partial):  # called later, in the midst of training
                _check_keywords(name, part)
        return build(**arguments)
    except TypeError as error:
        lacking = re.search(r"(?:unexpected keyword|required [a-z-]+) arguments?:? '(\w+)'", str(error))
        if lacking is None or lacking[1] in arguments:
            raise
        raise UserError(
            f"the keys of {plain['_target_']} do not fit: {error}; see its file in conf/"
        ) from error


def _check_keywords(name: str, part: partial) -> None:
    try:
        inspect.signature(part.func).bind_partial(**part.keywords)
    except TypeError as error:
        raise UserError(f"{name}: {part.func} does not take these keys: {error}; see conf/{name}/") from error


def allowed_prefixes(allow: Sequence[str]) -> tuple[str, ...]:
    """ALLOWED and what the user declared. Python's own modules, which can do anything, cannot be declared."""
    declared = (name for name in allow if name.partition(".")[0] not in sys.stdlib_module_names)
    return (*ALLOWED, *(f"{name}." for name in declared))


def classes_in(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The classes that plain containers name, with their keys: every `_target_` ("callbacks.mine._target_"), and what
    is an encoder's class ("encoder.audio.name")."""
    if isinstance(node, list):
        for i, child in enumerate(node):
            yield from classes_in(child, f"{path.removesuffix('.')}[{i}].")
    elif isinstance(node, dict):
        if node.get("_target_") is not None:
            yield f"{path}_target_", str(node["_target_"])
        for key, child in node.items():
            if key == "encoder" and isinstance(child, dict):
                for entry, keys in {"": child, **encoder_entries(child)}.items():
                    if is_class_path(name := str(keys.get("name"))):
                        yield f"{path}encoder.{entry}{'.' if entry else ''}name", name
            yield from classes_in(child, f"{path}{key}.")


def refused(node: Any, allowed: tuple[str, ...]) -> list[str]:
    """What is wrong with the classes in plain containers, in words; each is named where it lies highest."""
    problems: dict[str, str] = {}
    for key, target in sorted(classes_in(node), key=lambda item: item[0].count(".")):
        package = target.partition(".")[0]
        if not target.startswith(allowed):
            remedy = f"if you trust it: allow=[{package}]"
            if package in sys.stdlib_module_names:
                remedy = "no part of Python itself can be allowed"
            known = ", ".join(name.removesuffix(".") for name in allowed)
            problems.setdefault(
                target, f"{key}={target} is outside the packages that may be used ({known}); {remedy}"
            )
    return list(problems.values())


def is_class_path(name: str) -> bool:
    """`package.Class` and not timm's `model.tag`: classes are written with a capital."""
    return "." in name and name.rpartition(".")[2][:1].isupper()


def find_class(path: str) -> Any:
    """The encoder class of a dotted path; whether it may be imported, `construct` has said.

    Raises:
        UserError: there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"the encoder class {path} cannot be imported: {error}") from error
