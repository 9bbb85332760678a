"""From a `_target_` to an object: a class of the role that its place asks for. Imports no torch by itself."""

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

# Keys that have others run what a file holds.
UNSAFE = ("weights_only", "allow_pickle", "trust_remote_code", "trust_repo")


def construct(node: DictConfig, **arguments: Any) -> Any:
    """Build what `_target_` names. Unlike with Hydra's own function alone, arguments that are objects stay
    what they are, and an error in the constructor stays itself.

    Raises:
        UserError: a `_target_` that is no class of the role which its place asks for: nothing is called; keys that
            it does not take.
    """
    plain: Any = OmegaConf.to_container(node, resolve=True)
    check_classes(node)
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


def check_classes(node: DictConfig) -> None:
    """Look at every class that a configuration, or a part of one, names.

    Raises:
        UserError: one of them is not of the role which its place asks for. Nothing was called.
    """
    plain, place = OmegaConf.to_container(node, resolve=True), node._get_full_key(None)
    if problems := refused(plain, f"{place}." if place else ""):
        raise UserError("; ".join(problems))
    for key, target in classes_in(plain, f"{place}." if place else ""):
        class_of(target, key)


def class_of(target: str, key: str) -> type:
    """The class that a key means: "method._target_", "encoder.name".

    Raises:
        UserError: it cannot be imported, or is no class of the role which the place asks for.
    """
    role = role_of(key)
    if problem := _outside(key, target, role):
        raise UserError(problem)
    try:
        found = get_object(target)
    except Exception as error:  # whatever the import of a module raises
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
    """These classes, but for those that nothing has imported: no class that exists is a subclass of them."""
    modules = [(sys.modules.get(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names]
    return tuple(getattr(module, name) for module, name in modules if hasattr(module, name))


def _declared(name: str) -> bool:
    return f"{name}.".startswith(_prefixes(trusted()))


def _prefixes(allow: Sequence[str]) -> tuple[str, ...]:
    """What the user declared. Python's own modules, which can do anything, cannot be declared."""
    return tuple(f"{name}." for name in allow if name.partition(".")[0] not in sys.stdlib_module_names)


def find_class(path: str) -> Any:
    """The encoder class of a dotted path; raises as `class_of`."""
    return class_of(path, "encoder.name")


def is_class_path(name: str) -> bool:
    """`package.Class` and not timm's `model.tag`: classes are written with a capital."""
    return "." in name and name.rpartition(".")[2][:1].isupper()


def classes_in(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The classes that plain containers name, with their keys: every `_target_` ("callbacks.mine._target_"), and what
    is an encoder's class ("encoder.audio.name")."""
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
    """What is wrong with the classes in plain containers, in words, as far as their names alone say; each is named
    where it lies highest."""
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
    """What is wrong with a name that lies where nothing of its role does."""
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
