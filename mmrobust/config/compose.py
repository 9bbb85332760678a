"""Compose a configuration with Hydra, record its choices, and add entries for a manifest's modalities.

Imports no torch.
"""

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
    """The folder `conf`: it lies inside an installed package, and beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def compose_config(overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """Compose a configuration; its `choices` say which file of every group was chosen.

    Data with a key `manifest` take the columns of that CSV table as modalities. Each column gets its own entries, as if
    the data's file in conf/ had named it.

    Raises:
        UserError: the manifest has no column that could be a modality.
    """
    more = search_override(config_dir)

    def composed(texts: Sequence[str]) -> DictConfig:
        # Not cached: the cache is keyed by our own files only, and the user's may change.
        if config_dir:
            return _compose([*texts, *more])
        return _composed(tuple(texts), _state_of_files()).copy()

    try:
        config = composed(overrides)
        names = columns_of(config)
    # An override of a modality's entry fails before that entry exists, so the manifest is first read without it.
    except HydraException:
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
    """Compose our own files, cached: one command line is composed three times (to check, inspect and run it).

    The cache is small, because a sweep composes many command lines.
    """
    return _compose(overrides)


def _compose(overrides: Sequence[str]) -> DictConfig:
    with our_hydra():
        config = compose("config", list(overrides), return_hydra_config=True)
        check_hydra(config.hydra, overrides)
        return with_choices(config, config.hydra.runtime.choices)


def _state_of_files() -> tuple[tuple[str, int], ...]:
    """Names and modification times of our configuration files."""
    files = (path for path in conf_folder().rglob("*.yaml") if path.is_file())
    return tuple((str(path), path.stat().st_mtime_ns) for path in files)


def columns_of(config: DictConfig) -> list[str]:
    """Modality names in the user's manifest; empty if the data have none or `data.manifest` is not set yet."""
    if OmegaConf.is_missing(config.data, "manifest") or config.data.get("manifest") is None:
        return []
    return modality_columns(config.data.manifest, config.data.get("columns"))


def entries(names: Sequence[str]) -> list[str]:
    """Overrides that give each modality its own encoder entry and its keys below `data.modalities`."""
    groups = ("encoder@encoder.{}=inherit", "data/modality@data.modalities.{}=inferred")
    return [f"+{group.format(name)}" for name in names for group in groups]


def with_choices(config: DictConfig, choices: Mapping[str, Any]) -> DictConfig:
    """A copy without Hydra's own node, with the choices recorded and the learning rate scaled."""
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
    """Initialise Hydra with our folder, as a context manager. A sweep's own Hydra instance is cleared first."""
    GlobalHydra.instance().clear()
    return initialize_config_dir(str(conf_folder()), version_base="1.3")


def search_path(config_dir: str) -> str:
    """The folder as an entry of Hydra's search path."""
    return f"file://{Path(config_dir).resolve()}"


def search_override(config_dir: str | None) -> list[str]:
    """The override that adds the user's folder to Hydra's search path; empty without such a folder."""
    return (
        [f"hydra.searchpath=[{json.dumps(search_path(config_dir), ensure_ascii=False)}]"]
        if config_dir
        else []
    )
