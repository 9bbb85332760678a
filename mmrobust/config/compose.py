"""The configuration: compose it, name its run, build what it describes. Imports no torch."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from mmrobust.config.scaling import scale_lr
from mmrobust.data.table.csv_file import content_hash, modality_columns
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

# What does not change the numbers of a run.
NOT_IN_HASH = (
    "paths",
    "logger",
    "choices",
    "threads",
    "launch",
    "keep",
    "test_rates",
    "plan",
    "sweep",
    "study",
    "allow",
    "data.root",
    "data.cache",
    "data.manifest",  # its content counts, not its name
    "data.inferred",  # from what counts
    "data.workers",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
)

# Where the entries of single modalities lie.
ENTRIES = ("encoder.", "encoder@", "data.modalities.", "data/modality@")

# Further keys that runs of one row of a table may differ in.
NOT_IN_RECIPE = ("seed", "data.run_seed", "method.seed")


def conf_folder() -> Path:
    """The folder of configurations: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def compose_config(overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """Compose a configuration; `choices` in it says which file of every group was taken.

    Data with a key `manifest`, a table of the user's, has the columns of that table as modalities, and each of them
    gets entries of its own, as if the data's file in conf/ had named them.

    Raises:
        UserError: the manifest has no columns that could be modalities.
    """
    more = search_override(config_dir)

    def composed(texts: Sequence[str]) -> DictConfig:
        if config_dir:  # whose files we do not watch
            return _compose([*texts, *more])
        return _composed(tuple(texts), _state_of_files()).copy()

    try:
        config = composed(overrides)
        names = columns_of(config)
    except HydraException:  # perhaps of entries that are still to come
        others = [o for o in overrides if not o.lstrip("+~").startswith(ENTRIES)]
        names = columns_of(composed(others)) if len(others) < len(overrides) else []
        if not names:
            raise
    if not names:
        return config
    config = composed([*overrides, *entries(names)])
    config.data.columns, config.data.content = names, content_hash(config.data.manifest)
    return config


@lru_cache(maxsize=8)
def _composed(overrides: tuple[str, ...], state: object) -> DictConfig:
    """What is composed once although a command line is checked, then looked at, then run; few, for a sweep has many."""
    return _compose(overrides)


def _compose(overrides: Sequence[str]) -> DictConfig:
    with our_hydra():
        config = compose("config", list(overrides), return_hydra_config=True)
        return with_choices(config, config.hydra.runtime.choices)


def _state_of_files() -> tuple[tuple[str, int], ...]:
    """Which files of ours there are, and when they were last changed."""
    files = (path for path in conf_folder().rglob("*.yaml") if path.is_file())
    return tuple((str(path), path.stat().st_mtime_ns) for path in files)


def columns_of(config: DictConfig) -> list[str]:
    """The modalities that a table of the user's names; none for data without one, or as long as it is not named."""
    if OmegaConf.is_missing(config.data, "manifest") or config.data.get("manifest") is None:
        return []
    return modality_columns(config.data.manifest, config.data.get("columns"))


def entries(names: Sequence[str]) -> list[str]:
    """Overrides that give each modality an encoder of its own and the keys of `data.modalities`."""
    groups = ("encoder@encoder.{}=inherit", "data/modality@data.modalities.{}=inferred")
    return [f"+{group.format(name)}" for name in names for group in groups]


def with_choices(config: DictConfig, choices: Mapping[str, Any]) -> DictConfig:
    """The configuration without Hydra's own node, with the choices made and the learning rate scaled."""
    config = config.copy()
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    config.choices = {
        k: str(v) for k, v in choices.items() if v is not None and "@" not in k and "hydra/" not in k
    }
    OmegaConf.set_struct(config, True)
    scale_lr(config)
    return config


def our_hydra() -> Any:
    """A Hydra that knows our folder; also inside a sweep, which has one of its own."""
    GlobalHydra.instance().clear()
    return initialize_config_dir(str(conf_folder()), version_base="1.3")


def search_path(config_dir: str) -> str:
    """A folder as Hydra wants it."""
    return f"file://{Path(config_dir).resolve()}"


def search_override(config_dir: str | None) -> list[str]:
    """The override that has Hydra look into the user's folder as well."""
    return (
        [f"hydra.searchpath=[{json.dumps(search_path(config_dir), ensure_ascii=False)}]"]
        if config_dir
        else []
    )


def config_hash(config: DictConfig, without: Sequence[str] = ()) -> str:
    """Twelve letters that two runs share if and only if they should give the same numbers.

    Args:
        config: a composed configuration.
        without: further keys to leave out: with NOT_IN_RECIPE, runs that differ in the seed share them.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if plain["paths"]["teacher"] is not None:
        plain["method"]["teacher"]["run"] = None  # made for this configuration, which says all about it
    for key in (*NOT_IN_HASH, *without):
        *parents, last = key.split(".")
        node: Any = plain
        for parent in parents:
            node = (node or {}).get(parent)
        (node or {}).pop(last, None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def run_folder(config: DictConfig) -> Path:
    """Where this run's files go: `paths.run`, or a folder named after its configuration."""
    if config.paths.run is not None:
        return Path(config.paths.run)
    name = f"{config.choices.method}_{config.choices.data}"
    return Path(config.paths.outputs) / name / config_hash(config)


def load_run_config(folder: Path | str) -> DictConfig:
    """The configuration that a run was made with.

    Raises:
        UserError: the folder is not a run's.
    """
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"{folder} is not a run's folder: it has no config.yaml; give a folder that a run printed"
        )
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    return config


def construct(node: DictConfig, **arguments: Any) -> Any:
    """Build what `_target_` names. Unlike with Hydra's own function alone, arguments that are objects stay
    what they are, and an error in the constructor stays itself.

    Raises:
        UserError: a `_target_` outside the allowed packages, which is not called; keys that it does not take.
    """
    plain: Any = OmegaConf.to_container(node, resolve=True)
    allowed = allowed_prefixes(OmegaConf.select(node._get_root(), "allow", default=()))
    if problems := refused(plain, allowed):
        raise UserError("; ".join(problems))
    for path, target in targets_in(plain):  # mmrobust.run.os.system begins well, too
        try:
            found = get_object(target)
        except ImportError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[-1]
            raise UserError(
                f"{path}_target_={target} cannot be imported: {reason}; if it is yours, put its folder on PYTHONPATH"
            ) from error
        owner = getattr(found, "__module__", None) or type(found).__module__
        if not f"{owner}.".startswith(allowed):
            raise UserError(
                f"{path}_target_={target} leads to {owner}, outside the packages that may be used"
            )
    build = instantiate(node, _partial_=True, _convert_="all")
    try:
        for name, part in build.keywords.items():
            if isinstance(part, partial):  # called later, in the midst of training
                _check_keywords(name, part)
        return build(**arguments)
    except TypeError as error:
        key = re.search(r"(?:unexpected keyword|required [a-z-]+) arguments?:? '(\w+)'", str(error))
        if key is None or key[1] in arguments:
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


def targets_in(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every `_target_` in plain containers, with the path to it ("callbacks.mine.")."""
    if isinstance(node, list):
        for i, child in enumerate(node):
            yield from targets_in(child, f"{path.removesuffix('.')}[{i}].")
    elif isinstance(node, dict):
        if node.get("_target_") is not None:
            yield path, str(node["_target_"])
        for key, child in node.items():
            yield from targets_in(child, f"{path}{key}.")


def refused(node: Any, allowed: tuple[str, ...]) -> list[str]:
    """What is wrong with the `_target_`s in plain containers, in words; each is named where it lies highest."""
    problems: dict[str, str] = {}
    for path, target in sorted(targets_in(node), key=lambda item: item[0].count(".")):
        package = target.partition(".")[0]
        if not target.startswith(allowed):
            remedy = f"if you trust it: allow=[{package}]"
            if package in sys.stdlib_module_names:
                remedy = "no part of Python itself can be allowed"
            known = ", ".join(name.removesuffix(".") for name in allowed)
            problems.setdefault(
                target,
                f"{path}_target_={target} is outside the packages that may be used ({known}); {remedy}",
            )
    return list(problems.values())
