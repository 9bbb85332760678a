"""A configuration's hash, the folder of its run, and the configuration that lies in a folder. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmrobust.config.keys import NOT_IN_HASH, encoder_entries
from mmrobust.errors import UserError
from mmrobust.files import short_hash


def config_hash(config: DictConfig, without: Sequence[str] = ()) -> str:
    """Twelve letters that two runs share if and only if they should give the same numbers.

    Args:
        config: a composed configuration.
        without: further keys to leave out: with NOT_IN_RECIPE, runs that differ in the seed share them.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if not plain.get("metrics"):
        plain.pop("metrics", None)  # runs from before there were any keep their hash
    if plain["paths"]["teacher"] is not None:
        plain["method"]["teacher"]["run"] = None  # made for this configuration, which says all about it
    for key in (*NOT_IN_HASH, *without):
        *parents, last = key.split(".")
        node: Any = plain
        for parent in parents:
            node = (node or {}).get(parent)
        (node or {}).pop(last, None)
    return short_hash(plain, 12)


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
    return upgrade(config)


def upgrade(config: DictConfig) -> DictConfig:
    """The configuration of a run of an earlier version, with the keys that came later set to what it did without them.

    This is the only place that knows older configurations.
    """
    later: dict[str, Any] = {
        "init": "default",
        "keep": "all",
        "test_rates": [],
        "allow": [],
        "lr_scaling": {"rule": "none", "base": None},
        "study": {"trials": None, "name": None, "storage": None, "trial": None, "pruner": None},
        "trainer.compile": False,
    }
    of_methods: dict[str, dict[str, Any]] = {
        "DMRNet": {"method.mining": "variance"},
        "MMANet": {"method.distillation_from": None},
    }
    later |= of_methods.get(str(OmegaConf.select(config, "method._target_")).rpartition(".")[2], {})
    if OmegaConf.select(config, "data.manifest") is not None:
        later["data.inferred"] = None
    if str(config.data.get("_target_")).endswith(".Handwritten"):
        later["data.views"] = ["pix", "fou", "fac", "zer", "kar", "mor"]
    for encoder in ("encoder", "method.encoder"):
        if (found := OmegaConf.select(config, encoder)) is not None:
            later |= {
                f"{key}.weights": None
                for key in (encoder, *(f"{encoder}.{m}" for m in encoder_entries(found)))
            }
    for key, value in later.items():
        group, _, last = key.rpartition(".")
        if last not in OmegaConf.select(config, group) if group else last not in config:
            OmegaConf.update(config, key, value, force_add=True)
    return config
