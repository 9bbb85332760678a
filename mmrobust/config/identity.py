"""The hash of a configuration, the folder of its run, and reading and writing `config.yaml`. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmrobust.config.build import refused
from mmrobust.config.hidden import hide
from mmrobust.config.keys import NOT_IN_HASH, encoder_entries
from mmrobust.errors import UserError, masked
from mmrobust.files import check_inside, short_hash, write_text

# Sections that every run's configuration has.
NEEDED = ("choices", "data", "encoder", "method", "missing", "noise", "paths", "trainer")
# Limits of the bytes and of the nesting of a run's configuration; ours have a few thousand bytes and ten levels.
MOST = 2**20
DEEPEST = 50


class DamagedError(UserError):
    """A run's config.yaml cannot be read. A caller that knows the configuration may write the file anew."""


def config_hash(config: DictConfig, without: Sequence[str] = ()) -> str:
    """Twelve hex digits that two runs share if and only if they should give the same numbers.

    Args:
        config: a composed configuration.
        without: further keys to leave out: with NOT_IN_RECIPE, runs that differ in the seed have the same hash.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    # These two keys came later. Their defaults are left out, so that earlier runs keep their hash.
    if not plain.get("metrics"):
        plain.pop("metrics", None)
    if plain.get("combinations") == "all":
        plain.pop("combinations")
    # This teacher was trained for this configuration, whose other keys determine it.
    if plain["paths"]["teacher"] is not None:
        plain["method"]["teacher"]["run"] = None
    for key in (*NOT_IN_HASH, *without):
        *parents, last = key.split(".")
        node: Any = plain
        for parent in parents:
            node = (node or {}).get(parent)
        (node or {}).pop(last, None)
    return short_hash(plain, 12)


def run_folder(config: DictConfig) -> Path:
    """The folder of this run's files: `paths.run`, or a folder named after its configuration."""
    if config.paths.run is not None:
        return Path(config.paths.run)
    name = f"{config.choices.method}_{config.choices.data}"
    return Path(config.paths.outputs) / name / config_hash(config)


def save_run_config(config: DictConfig, folder: Path) -> None:
    """Write `config.yaml` atomically, with all references resolved and with secrets masked."""
    plain = hide(config)
    for part in ("study", "sweep"):
        if (plain.get(part) or {}).get("storage"):
            plain[part]["storage"] = masked(plain[part]["storage"])
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(plain)))


def load_run_config(folder: Path | str) -> DictConfig:
    """Read the configuration that a run was made with. The run may come from somebody else, so it is not trusted.

    Raises:
        DamagedError: config.yaml is not a whole configuration.
        UserError: the folder is not a run's folder; a value holds a reference, which would be resolved on this machine
            (its environment, for example); a class is not allowed; a link leads out of the folder.
    """
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"{folder} is not a run's folder: it has no config.yaml; give a folder that a run printed"
        )
    check_inside(Path(folder))
    return checked_config(_read(path), path)


def checked_config(plain: dict[str, Any], path: Path) -> DictConfig:
    """Make a run's configuration from the plain data that `path` holds.

    Raises:
        UserError: a section is missing; a value holds a reference; a class is not allowed.
    """
    if lacking := [key for key in NEEDED if not isinstance(plain.get(key), dict)]:
        raise UserError(f"{path}: its configuration lacks {', '.join(lacking)}")
    if references := sorted(_references(plain)):
        raise UserError(
            f"{path}: {', '.join(references[:3])} refers to something else (${{...}}), and a run's configuration holds "
            "values alone; take it as the run wrote it"
        )
    if problems := refused(plain):
        raise UserError(f"{path}: {'; '.join(problems)}")
    return upgrade(OmegaConf.create(plain))


def upgrade(config: DictConfig) -> DictConfig:
    """Add the keys that a run of an earlier version lacks, with the values that reproduce that version.

    No other function knows older configurations.
    """
    later: dict[str, Any] = {
        "init": "default",
        "keep": "all",
        "keep_masks": False,
        "test_rates": [],
        "allow": [],
        "combinations": "all",
        "lr_scaling": {"rule": "none", "base": None},
        "study": {"trials": None, "name": None, "storage": None, "trial": None, "pruner": None},
        "study.chosen": None,
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
            for key in (encoder, *(f"{encoder}.{m}" for m in encoder_entries(found))):
                later |= {f"{key}.weights": None, f"{key}.lr_factor": 1.0}
    for key, value in later.items():
        group, _, last = key.rpartition(".")
        if last not in OmegaConf.select(config, group) if group else last not in config:
            OmegaConf.update(config, key, value, force_add=True)
    return config


def _read(path: Path) -> dict[str, Any]:
    """Read and parse config.yaml.

    Raises:
        DamagedError: the file is not a whole configuration.
    """
    try:
        if path.stat().st_size > MOST:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        text = path.read_text(encoding="utf-8")
        _check_depth(text)
        loaded = OmegaConf.create(text)
        plain = OmegaConf.to_container(loaded)
        if not isinstance(plain, dict) or not plain:
            raise ValueError("it is empty" if not text.strip() else "it is no dictionary")
        if lacking := [key for key in NEEDED if not isinstance(plain.get(key), dict)]:
            raise ValueError(f"it lacks {', '.join(lacking)}")
    except (ValueError, AssertionError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[:2])
        raise DamagedError(
            f"{path} is damaged: {reason}. The command that made the run ({path.with_name('overrides.txt')}) writes it "
            "anew and goes on; give it paths.run if the folder has moved"
        ) from error
    return {str(key): value for key, value in plain.items()}


def _check_depth(text: str) -> None:
    """Check the nesting by the YAML tokens alone, because parsing deep or self-referring YAML takes for ever.

    Raises:
        ValueError: the text is nested more than DEEPEST levels, or has an alias.
    """
    depth = 0
    for token in yaml.scan(text, yaml.SafeLoader):
        depth += token.id in ("<block sequence start>", "<block mapping start>", "[", "{")
        depth -= token.id in ("<block end>", "]", "}")
        if depth > DEEPEST or isinstance(token, yaml.AliasToken):
            raise ValueError("it is nested too deeply, or refers to itself")


def _references(node: Any, path: str = "") -> Iterator[str]:
    """The keys whose value holds a reference, `${...}`."""
    if isinstance(node, dict):
        for key, child in node.items():
            yield from _references(key, f"{path} (a key)")
            yield from _references(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, child in enumerate(node):
            yield from _references(child, f"{path}[{i}]")
    elif isinstance(node, str) and "${" in node:
        yield path
