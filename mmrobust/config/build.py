"""Build the object that a `_target_` names, if its class has the role that the key asks for.

This module does not import torch; the classes may.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from mmrobust.config.roles import ARGUMENT, NETWORK, Role, role_of
from mmrobust.config.trust import trusted
from mmrobust.errors import UserError

# Arguments of libraries that let a file's content run as code.
UNSAFE = ("weights_only", "allow_pickle", "trust_remote_code", "trust_repo")


def construct(node: DictConfig, **arguments: Any) -> Any:
    """Instantiate `_target_`.

    Unlike `hydra.utils.instantiate`, this passes object arguments through unconverted and does not wrap the
    constructor's exceptions.

    Raises:
        UserError: a class does not have the role that its key asks for (then nothing was called), or does not take the
            keys of its node.
    """
    plain: Any = OmegaConf.to_container(node, resolve=True)
    check_classes(node)
    build = instantiate(node, _partial_=True, _convert_="all")
    try:
        for name, part in build.keywords.items():
            # A partial is called in the midst of training, which is too late to learn of a wrong key.
            if isinstance(part, partial):
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


def check_classes(node: DictConfig) -> None:
    """Check every class that a configuration, or a part of one, names. Nothing is called.

    Raises:
        UserError: a class does not have the role that its key asks for.
    """
    plain, place = OmegaConf.to_container(node, resolve=True), node._get_full_key(None)
    if problems := refused(plain, f"{place}." if place else ""):
        raise UserError("; ".join(problems))
    for key, target in classes_in(plain, f"{place}." if place else ""):
        class_of(target, key)


def class_of(target: str, key: str) -> type:
    """Import the class `target` that stands at `key`, such as "method._target_" or "encoder.name".

    Raises:
        UserError: the class cannot be imported, or does not have the role that the key asks for.
    """
    role = role_of(key)
    if problem := _outside(key, target, role):
        raise UserError(problem)
    try:
        found = get_object(target)
    # The import of a module may raise anything.
    except Exception as error:
        reason = str(error.__cause__ or error).strip().splitlines() or [repr(error)]
        raise UserError(
            f"{key}={target} cannot be imported: {reason[-1]}; if it is yours, put its folder on PYTHONPATH"
        ) from error
    if isinstance(found, type):
        if issubclass(found, _loaded(role.bases)) or (role is ARGUMENT and _declared(found.__module__)):
            return found
        what = f"the class {found.__module__}.{found.__qualname__}"
    else:
        name = f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', None)}"
        if name in role.functions:
            return cast(type, found)
        what = f"{name}, no class" if callable(found) else f"a {type(found).__name__}, no class"
    raise UserError(
        f"{key}={target} leads to {what}; here may stand {role.name}: a subclass of {' or '.join(role.bases)}"
    )


def _loaded(names: Sequence[str]) -> tuple[type, ...]:
    """Those of the named classes that are imported. The others need no import: no existing class derives from them."""
    modules = [(sys.modules.get(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names]
    return tuple(getattr(module, name) for module, name in modules if hasattr(module, name))


def _declared(name: str) -> bool:
    return f"{name}.".startswith(_prefixes(trusted()))


def _prefixes(allow: Sequence[str]) -> tuple[str, ...]:
    """The packages of `allow` as prefixes, without Python's own modules: they could do anything."""
    return tuple(f"{name}." for name in allow if name.partition(".")[0] not in sys.stdlib_module_names)


def find_class(path: str) -> Any:
    """The encoder class at a dotted path.

    Raises:
        UserError: as `class_of`.
    """
    return class_of(path, "encoder.name")


def is_class_path(name: str) -> bool:
    """Whether a name is `package.Class`, not timm's `model.tag`: a class begins with a capital."""
    return "." in name and name.rpartition(".")[2][:1].isupper()


def classes_in(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield key and name of each class in plain containers: each `_target_` ("callbacks.mine._target_"), and each
    `name` of an encoder that is a class ("encoder.audio.name")."""
    if isinstance(node, list):
        for i, child in enumerate(node):
            yield from classes_in(child, f"{path.removesuffix('.')}[{i}].")
    elif isinstance(node, dict):
        if node.get("_target_") is not None:
            yield f"{path}_target_", str(node["_target_"])
        if role_of(f"{path}name") is NETWORK and is_class_path(name := str(node.get("name"))):
            yield f"{path}name", name
        for key, child in node.items():
            yield from classes_in(child, f"{path}{key}.")


def refused(node: Any, path: str = "") -> list[str]:
    """Problems of the class names and unsafe keys in plain containers; nothing is imported. A class that stands at
    several keys is reported once, at the key of the highest level."""
    problems: dict[str, str] = {}
    for key, target in sorted(classes_in(node, path), key=lambda item: item[0].count(".")):
        if problem := _outside(key, target, role_of(key)):
            problems.setdefault(target, problem)
    unsafe = [
        f"{key} says whether what a file holds is run: no configuration may; leave it out"
        for key in _keys_in(node, path)
        if key.rpartition(".")[2] in UNSAFE
    ]
    return [*problems.values(), *unsafe]


def _outside(key: str, target: str, role: Role) -> str | None:
    """The problem of a class name outside the packages that its role allows; None if it is inside."""
    if target.startswith((*role.within, *_prefixes(trusted()))):
        return None
    package = target.partition(".")[0]
    if package in sys.stdlib_module_names:
        remedy = "no part of Python itself can be allowed"
    elif target.startswith(ARGUMENT.within):
        remedy = f"here may stand {role.name}"
    else:
        remedy = f"if you trust it: allow=[{package}] on the command line"
    known = ", ".join(name.removesuffix(".") for name in role.within)
    return f"{key}={target} is outside the packages that may be used here ({known}); {remedy}"


def _keys_in(node: Any, path: str) -> Iterator[str]:
    if isinstance(node, list):
        for i, child in enumerate(node):
            yield from _keys_in(child, f"{path.removesuffix('.')}[{i}].")
    elif isinstance(node, dict):
        for key, child in node.items():
            yield f"{path}{key}"
            yield from _keys_in(child, f"{path}{key}.")
