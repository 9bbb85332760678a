"""Where a run's folder that somebody sends may have files written: into itself, and where this machine's command line or
environment says. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmrobust.config.compose import conf_folder
from mmrobust.config.trust import trusted
from mmrobust.errors import Problems, UserError
from mmrobust.files import expanded

# Keys, by their last part, that name a place to write to, whatever has them; data's folders are read, but for caches.
PLACES = ("*dir", "*dirpath", "*dir_path", "*folder", "*storage", "*uri", "*cache", "*log_file")
# What may hold parts of paths in any key.
WRITERS = ("callbacks.", "logger.", "trainer.")


def confined(config: DictConfig, folder: Path, given: Sequence[str] = (), *, trains: bool) -> DictConfig:
    """The configuration of a run's folder, so that what is built of it writes to no other place that it names.

    Caches and downloads go where this machine has them. All else stays in the folder, or below the `paths.outputs` of the
    command line, but for what classes of packages are told that the command line allows.

    Args:
        config: as the folder has it.
        folder: the run's.
        given: what the command line says, which is trusted.
        trains: whether callbacks and loggers are built, too.

    Raises:
        UserError: a place elsewhere; nothing was built.
    """
    config, ours = config.copy(), _ours(given)
    OmegaConf.set_struct(config, False)
    config.paths.run, config.paths.cache = str(folder), ours.cache
    if config.data.get("cache") is not None:
        config.data.cache = ours.cache
    if config.data.get("download") and not _inside(str(config.data.get("root")), [Path(ours.data)]):
        config.data.download = False  # what is not there is told
    for logger in config.logger.values():
        if "save_dir" in logger:
            logger.save_dir = str(folder)
    plain: Any = OmegaConf.to_container(config)
    for part in (
        "paths",
        "choices",
        "sweep",
        *(() if trains else ("callbacks", "logger", "study", "trainer")),
    ):
        plain.pop(part, None)
    allowed = [folder, expanded(ours.outputs), *([expanded(ours.cache)] if ours.cache else [])]
    problems = Problems(
        f"{folder / 'config.yaml'}: {key}={value} is a place outside the run's folder; files are written there if it lies below "
        "the paths.outputs of the command line alone; add that if you trust the file, or mend it"
        for key, value in _strings(plain)
        if f"{key}={value}" not in given and _is_place(key, value) and not _inside(value, allowed)
    )
    if problems:
        raise UserError(str(problems))
    return config


def _ours(given: Sequence[str]) -> DictConfig:
    """`paths` of this machine."""
    paths = OmegaConf.load(conf_folder() / "config.yaml").paths
    for key, _, value in (text.partition("=") for text in given):
        if key in ("paths.cache", "paths.outputs"):
            paths[key.partition(".")[2]] = value.strip("'\"")
    return paths


def _is_place(key: str, value: str) -> bool:
    last = key.rpartition(".")[2].partition("[")[0]
    if last == "_target_" or (key.startswith("data.") and "cache" not in last):
        return False
    if any(fnmatch(last, name) for name in PLACES):
        return True
    leads_away = Path(value).is_absolute() or value.startswith("~") or ".." in Path(value).parts
    return key.startswith(WRITERS) and leads_away


def _inside(place: str, folders: Sequence[Path]) -> bool:
    """Whether a path, or the file that an address of SQLite's names, lies in one of these."""
    scheme, there, path = place.partition("://")
    if there and not scheme.startswith(("sqlite", "file")):
        return False
    where = expanded(
        path.removeprefix("/") if there and scheme.startswith("sqlite") else path if there else place
    )
    return any(where.resolve().is_relative_to(folder.resolve()) for folder in folders)


def _of(packages: Sequence[str], target: str) -> bool:
    return any(f"{target}.".startswith(f"{package.rstrip('.')}.") for package in packages)


def _strings(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        # whoever allows a package on the command line lets its classes write where they are told to
        if _of(trusted(), str(node.get("_target_", ""))):
            return
        for key, child in node.items():
            yield from _strings(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, child in enumerate(node):
            yield from _strings(child, f"{path}[{i}]")
    elif isinstance(node, str):
        yield path, node
