"""The configuration: parse, compose, check everything at once. Imports no torch."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmrobust.errors import UserError

ALLOWED = ("mmrobust.", "torch.", "torchvision.", "torchmetrics.", "timm.", "lightning.", "albumentations.")

# What does not change the numbers of a run.
NOT_IN_HASH = (
    "paths",
    "logger",
    "choices",
    "threads",
    "allow",
    "data.root",
    "data.workers",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
)

# Further keys that runs of one row of a table may differ in.
NOT_IN_RECIPE = ("seed", "data.run_seed", "method.seed")

# Keys whose value may be of several types.
_ANY_TYPE = ("devices", "rate", "precision", "groups", "kinds", "clarity", "variants", "combination", "rates")


def conf_folder() -> Path:
    """The folder of configurations: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def compose_config(overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """Compose a configuration; `choices` in it says which file of every group was taken."""
    with _hydra():
        more = (
            [f"hydra.searchpath=[{json.dumps('file://' + str(Path(config_dir).resolve()))}]"]
            if config_dir
            else []
        )
        config = compose("config", [*overrides, *more], return_hydra_config=True)
        return with_choices(config, config.hydra.runtime.choices)


def with_choices(config: DictConfig, choices: Mapping[str, Any]) -> DictConfig:
    """The configuration without Hydra's own node, with the choices made."""
    config = config.copy()
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    config.choices = {
        k: str(v) for k, v in choices.items() if v is not None and "@" not in k and "hydra/" not in k
    }
    OmegaConf.set_struct(config, True)
    return config


def _hydra() -> Any:
    """A Hydra that knows our folder; also inside a sweep, which has one of its own."""
    GlobalHydra.instance().clear()
    return initialize_config_dir(str(conf_folder()), version_base="1.3")


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
    what they are, and an error in the constructor stays itself."""
    partial = instantiate(node, _partial_=True, _convert_="all")
    return partial(**arguments)


# Checks


def check_command_line(overrides: Sequence[str], config_dir: str | None, multirun: bool) -> None:
    """Check every override, then the composed configuration.

    Raises:
        UserError: everything that is wrong, at once, with the nearest valid names.
    """
    problems: list[str] = []
    parsed: list[Override] = []
    parser = OverridesParser.create()
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except OverrideParseException as error:
            problems.append(f"{text!r} is not an override (key=value): {str(error).splitlines()[0]}")
    if not multirun:
        problems += [
            f"{o.input_line!r} lists several values; add -m to run each of them"
            for o in parsed
            if o.is_sweep_override()
        ]
    with _hydra():
        loader = GlobalHydra.instance().config_loader()
        if config_dir:
            if not Path(config_dir).is_dir():
                raise UserError(f"--config-dir {config_dir}: no such folder")
            loader.get_search_path().append("command-line", f"file://{Path(config_dir).resolve()}")
            loader = type(loader)(loader.get_search_path())  # type: ignore[call-arg]
        groups = set(_groups(loader))
        for o in parsed:
            if (o.key_or_group in groups) and not o.is_add():
                problems += _check_choice(o, loader)
    if not problems:
        problems += _check_experiment(parsed, config_dir)
    if not problems:
        problems += _check_keys(parsed, groups, config_dir)
    if not problems:
        for combination in _jobs(parsed) if multirun else [[o.input_line or "" for o in parsed]]:
            try:
                config = compose_config(combination, config_dir)
                found = check_config(config, [o.key_or_group for o in parsed])
            except (HydraException, OmegaConfBaseException) as error:
                found = [str(error).splitlines()[0]]
            problems += [p for p in found if p not in problems]
    if problems:
        raise UserError("\n".join(f"- {p}" for p in problems) if len(problems) > 1 else problems[0])


def _values(override: Override) -> list[Any]:
    if override.is_sweep_override():
        try:
            return [str(value) for value in override.sweep_string_iterator()]
        except (TypeError, ValueError, HydraException, NotImplementedError):
            return []  # glob and ranges are Hydra's to expand
    return [override.value()]


def _jobs(parsed: Sequence[Override], most: int = 64) -> list[list[str]]:
    """The overrides of the first jobs of a sweep."""
    jobs: list[list[str]] = [[]]
    for o in parsed:
        values = _values(o) if o.is_sweep_override() else []
        if o.is_sweep_override():
            prefix = (o.input_line or "").partition("=")[0]
            choices = [f"{prefix}={v}" for v in values]
        else:
            choices = [o.input_line or ""]
        jobs = [[*job, choice] for job in jobs for choice in choices] or jobs
    return jobs[:most]


def _groups(loader: ConfigLoader, parent: str = "") -> Iterable[str]:
    for group in loader.list_groups(parent):
        name = f"{parent}/{group}" if parent else group
        if name != "hydra":
            yield name
            yield from _groups(loader, name)


def _nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, by the whole name or its last part."""
    known = sorted(set(known))
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if not close:
        last = {name.rpartition(".")[2]: name for name in known}
        close = [
            last[name]
            for name in difflib.get_close_matches(word.rpartition(".")[2], list(last), n=3, cutoff=0.7)
        ]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _check_choice(override: Override, loader: ConfigLoader) -> list[str]:
    options = loader.get_group_options(override.key_or_group, results_filter=ObjectType.CONFIG)
    options = [name for name in options if name != "inherit"]
    problems = []
    for value in _values(override):
        if value is not None and str(value) not in options and "glob" not in str(value):
            hint = _nearest(str(value), options) or f"; choose one of {', '.join(options)}"
            problems.append(f"{override.key_or_group}={value} is not known{hint}")
    return problems


def _check_experiment(parsed: Sequence[Override], config_dir: str | None) -> list[str]:
    """An experiment fixes its method and data."""
    experiment = next((o for o in parsed if o.key_or_group == "experiment"), None)
    if experiment is None or experiment.is_sweep_override() or experiment.value() is None:
        return []
    choices = compose_config([f"experiment={experiment.value()}"], config_dir).choices
    return [
        f"experiment={experiment.value()} fixes {o.key_or_group}={choices[o.key_or_group]}; leave out "
        f"{o.input_line}, or leave out the experiment"
        for o in parsed
        if o.key_or_group in ("method", "data") and str(o.value()) != choices[o.key_or_group]
    ]


def _check_keys(parsed: Sequence[Override], groups: set[str], config_dir: str | None) -> list[str]:
    """Keys that do not exist, values of another type than the key's default."""
    chosen = [o for o in parsed if o.key_or_group in groups]
    base = [f"{(o.input_line or '').partition('=')[0]}={_values(o)[0]}" if _values(o) else "" for o in chosen]
    config = compose_config([text for text in base if text], config_dir)
    known = set(_flat_keys(config))
    problems = []
    for o in parsed:
        if (
            o in chosen
            or o.is_add()
            or o.key_or_group.startswith("hydra")
            or "@" in (o.input_line or "").partition("=")[0]
        ):
            continue
        key = o.key_or_group
        if key not in known:
            problems.append(f"there is no key {key}{_nearest(key, known | groups)}")
        elif not o.is_delete():
            problems += [
                p
                for v in _values(o)
                if (p := _check_type(key, v, OmegaConf.select(config, key, throw_on_missing=False)))
            ]
    return problems


def _flat_keys(config: Any, prefix: str = "") -> Iterable[str]:
    for key in config:
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(config, key) and isinstance(config[key], DictConfig):
            yield from _flat_keys(config[key], f"{prefix}{key}.")


def _check_type(key: str, value: Any, default: Any) -> str | None:
    if isinstance(value, str):
        value = OmegaConf.create({"value": value}).value if "${" in value else _number_or_text(value)
    if (
        default is None
        or value is None
        or key.rpartition(".")[2] in _ANY_TYPE
        or (isinstance(value, str) and "${" in value)
    ):
        return None
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    for kind, words in kinds.items():
        if isinstance(default, kind):
            fits = isinstance(value, (int, float) if kind is float else kind) or kind is str
            if kind is not bool and isinstance(value, bool):
                fits = False
            return None if fits else f"{key}={value} is not {words} (default: {default})"
    return None


def _number_or_text(text: str) -> Any:
    value = OverridesParser.create().parse_override(f"x={text}").value() if text else text
    return value if isinstance(value, (bool, int, float)) else text


def modality_names(config: DictConfig) -> list[str]:
    """The modalities that the configuration names: the entries under `encoder`."""
    names = [str(k) for k, v in config.encoder.items() if isinstance(v, DictConfig) and k != "options"]
    return names[: config.data.get("num_modalities", len(names))]


def check_config(config: DictConfig, given: Sequence[str] = ()) -> list[str]:
    """What is wrong with a composed configuration; `given` are the keys set by the user."""
    problems = [f"{key} has no value yet; set {key}=..." for key in sorted(OmegaConf.missing_keys(config))]
    if problems:
        return problems
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if "fusion" in given and "fusion" not in plain["method"]:
        problems.append(
            f"method={config.choices.method} takes no fusion; leave out fusion={config.choices.fusion}"
        )
    if plain["selection"] not in ("mean", "last", "paper"):
        problems.append(f"selection={plain['selection']} is not known; choose mean, last or paper")
    problems += _check_ranges(plain)
    problems += _check_targets(plain, tuple(ALLOWED) + tuple(f"{p}." for p in plain["allow"]))
    names = modality_names(config)
    for split in ("train", "test"):
        protocol = plain["missing"][split]
        rates = protocol.get("rate", 0)
        for label, rate in rates.items() if isinstance(rates, dict) else [("rate", rates)]:
            if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 <= rate <= 1:
                problems.append(f"missing.{split}.rate: {label}={rate} is not in [0, 1]")
        used = [*(rates if isinstance(rates, dict) else ()), *protocol.get("combination", ())]
        problems += [
            f"missing.{split} names the modality {m!r}; {config.choices.data} has {', '.join(names)}"
            for m in used
            if names and m not in names
        ]
    return problems


def _check_ranges(plain: Mapping[str, Any]) -> list[str]:
    at_least = {
        "seed": 0,
        "data.seed": 0,
        "missing.seed": 0,
        "data.batch_size": 1,
        "data.workers": 0,
        "trainer.max_epochs": 1,
        "optimizer.lr": 0,
    }
    problems = []
    for key, least in at_least.items():
        node: Any = plain
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        if (
            isinstance(node, (int, float))
            and node < least
            and not (key == "trainer.max_epochs" and node == -1)
        ):
            problems.append(f"{key}={node} is below {least}")
    return problems


def _check_targets(node: Any, allowed: tuple[str, ...], path: str = "") -> list[str]:
    """Every `_target_` must be of a library that we use or that the user declared with `allow`."""
    if isinstance(node, list):
        return [p for i, child in enumerate(node) for p in _check_targets(child, allowed, f"{path}[{i}]")]
    if not isinstance(node, dict):
        return []
    problems = []
    target = node.get("_target_")
    if target is not None and not str(target).startswith(allowed):
        package = str(target).partition(".")[0]
        problems.append(
            f"{path}._target_={target} is outside the packages that may be used; if you trust it: allow=[{package}]"
        )
    for key, child in node.items():
        problems += _check_targets(child, allowed, f"{path}.{key}" if path else str(key))
    return problems
