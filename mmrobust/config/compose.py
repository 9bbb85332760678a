"""Compose a configuration: with the choices made, and the entries of a table's modalities. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from mmrobust.config.hydra_rules import check_hydra
from mmrobust.config.keys import OF_MODALITIES
from mmrobust.config.scaling import scale_lr
from mmrobust.data.table.csv_file import content_hash, modality_columns


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
        others = [o for o in overrides if not o.lstrip("+~").startswith(OF_MODALITIES)]
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
        check_hydra(config.hydra, overrides)
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
