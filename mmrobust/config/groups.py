"""The groups of the configuration and their choices, the user's own among them. Imports no torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from mmrobust.config.compose import conf_folder, our_hydra, search_path
from mmrobust.config.overrides import parse, text_of, values, with_value
from mmrobust.errors import Problems, UserError

# Groups of which a list of choices may be taken.
SEVERAL = ("metric", "callbacks")

# Groups whose files must say where their keys go, for no key is named like the group; and what ours say.
PACKAGES = {"metric": "metrics", "experiment": "_global_", "debug": "_global_", "ablation": "_global_"}


def group_options(config_dir: str | None) -> dict[str, list[str]]:
    """The choices of every group.

    Args:
        config_dir: the user's folder of further configurations.
    """
    with our_hydra():
        loader = GlobalHydra.instance().config_loader()
        if config_dir:
            loader.get_search_path().append("command-line", search_path(config_dir))
            loader = type(loader)(loader.get_search_path())  # type: ignore[call-arg]
        # For each group the loader would read all the files again.
        repository = loader.repository  # type: ignore[attr-defined]
        options = {
            group: [n for n in repository.get_group_options(group, ObjectType.CONFIG) if n != "inherit"]
            for group in _groups(repository)
        }
        launchers = loader.get_group_options("hydra/launcher", ObjectType.CONFIG)  # of what is installed
        return options | {"hydra/launcher": sorted({*launchers, *EXTRAS})}


def check_packages(config_dir: str) -> None:
    """Look at the first line of the user's files: without it, the keys of `metric/mine.yaml` would lie at `metric`,
    where nothing reads them.

    Raises:
        UserError: a file does not say where its keys go.
    """
    problems = Problems()
    for group, package in PACKAGES.items():
        for path in sorted(Path(config_dir).glob(f"{group}/**/*.yaml")):
            first = path.read_text(encoding="utf-8").lstrip().partition("\n")[0].rstrip()
            said = re.fullmatch(r"#\s*@package\s+(\S+)", first)
            if said is None or said[1].partition(".")[0] in PACKAGES:
                problems.append(
                    f"{path} begins with {first!r}; its first line must be # @package {package}, which says where "
                    "its keys go"
                )
    if problems:
        raise UserError(str(problems))


def _groups(repository: ConfigRepository, parent: str = "") -> Iterable[str]:
    for group in repository.get_group_options(parent, ObjectType.GROUP):
        name = f"{parent}/{group}" if parent else group
        if name != "hydra":
            yield name
            yield from _groups(repository, name)


def check_choice(override: Override, options: Sequence[str]) -> list[str]:
    """What is wrong with a choice, or the several of a sweep, in words."""
    group, problems = override.key_or_group, []
    chosen = values(override)
    if group in SEVERAL:
        chosen = [v for value in chosen for v in (value if isinstance(value, list) else [value])]
    if not chosen and not override.is_delete():
        problems.append(f"{group}=[] chooses nothing; choose {group}=none, or of {', '.join(options)}")
    for value in chosen:
        word = "null" if value is None else str(value)
        if word not in options and not override.is_delete():
            hint = nearest(word, options) or f"; choose one of {', '.join(options)}, or leave it out"
            problems.append(f"{group}={word} is not known{hint}")
        elif group == "hydra/launcher" and (problem := not_installed(word)):
            problems.append(problem)
    return problems


def with_globs(given: Sequence[str], config_dir: str | None) -> list[str]:
    """The overrides of a sweep, of which `group=glob(pattern)` has become a list of the choices that match.

    Args:
        given: overrides, not checked yet.
        config_dir: the user's folder of further configurations.

    Raises:
        UserError: no choice matches; the key is no group.
    """
    if not any("glob(" in text for text in given):
        return list(given)
    options = group_options(config_dir)
    return [_without_glob(text, options) for text in given]


def _without_glob(text: str, options: dict[str, list[str]]) -> str:
    try:
        override = parse(text)
    except HydraException:  # told where the rest is checked
        return text
    glob, group = override.value(), override.key_or_group
    if not isinstance(glob, Glob):
        return text
    if group not in options:
        raise UserError(
            f"{text}: glob lists the choices of a group, and {group} is none{nearest(group, options)}"
        )
    matching = glob.filter(options[group])
    if not matching:
        raise UserError(f"{text_of(override)} matches no choice; there are {', '.join(options[group])}")
    return with_value(override, ",".join(matching))


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, by the whole name or its last part."""
    known = sorted(set(known))
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if not close:
        last = {name.rpartition(".")[2]: name for name in known}
        close = [last[n] for n in difflib.get_close_matches(word.rpartition(".")[2], list(last), 3, 0.7)]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def offered(key: str, options: Mapping[str, Sequence[str]]) -> str:
    """`; method=dmrnet has it`: the choices that would bring a key which the chosen ones do not have."""
    group, _, rest = key.partition(".")
    folder = f"{group}/pattern" if f"{group}/pattern" in options else group
    names = options.get(folder, ())
    if folder != group:  # of `missing` and `noise`: for train and test alike
        part, _, rest = rest.partition(".")
    found = [name for name in names if rest and rest in _keys_of(folder, name)]
    if not found:
        return ""
    whole = folder == group or all(name in options[group] for name in found)
    here = group if whole else f"{folder}@{group}.{part}"
    shown = ", ".join(f"{here}={name}" for name in found[:3])
    return f"; {shown} {'has' if len(found) == 1 else 'have'} it{', among others' if len(found) > 3 else ''}"


def _keys_of(group: str, name: str) -> set[str]:
    """The keys that a choice of ours has by itself."""
    path = conf_folder() / group / f"{name}.yaml"
    node: Any = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else None
    found: set[str] = set()

    def walk(node: Any, prefix: str) -> None:
        for key, child in node.items() if isinstance(node, dict) else ():
            found.add(f"{prefix}{key}")
            walk(child, f"{prefix}{key}.")

    walk(node, "")
    return found


EXTRAS = {  # launcher -> the plugin's package, and the extra that brings it
    "joblib": ("hydra_joblib_launcher", "joblib"),
    "submitit_local": ("hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_submitit_launcher", "slurm"),
    "ray": ("hydra_ray_launcher", "ray"),
}


def not_installed(launcher: str) -> str | None:
    """What is to be installed before a launcher can be used."""
    package, extra = EXTRAS.get(launcher, ("", ""))
    if not package or (find_spec("hydra_plugins") and find_spec(f"hydra_plugins.{package}")):
        return None
    return f"hydra/launcher={launcher} is not installed: pip install 'mmrobust[{extra}]'"
