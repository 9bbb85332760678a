"""What is composed: choices are recorded, and every key stands in the YAML."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_object
from omegaconf import OmegaConf

from mmrobust.config.compose import compose_config, conf_folder

TABLE = Path(__file__).parents[1] / "data/table.csv"  # columns id, label, rgb, audio


def test_choices_are_recorded() -> None:
    choices = compose_config(["method=late", "data=avmnist", "missing=mcar"]).choices
    assert (choices.method, choices.data, choices.missing, choices.optimizer) == (
        "late",
        "avmnist",
        "mcar",
        "adamw",
    )


# Every key stands in the YAML

OURS = [
    path
    for path in sorted(conf_folder().rglob("*.yaml"))
    if str((yaml.safe_load(path.read_text()) or {}).get("_target_", "")).startswith("mmrobust.")
]
GIVEN_AT_BUILD = {"spec", "widths", "encoders"}


def parameters(target: Any) -> list[inspect.Parameter]:
    """The constructor's named parameters, those that it passes on by ** included."""
    found: dict[str, inspect.Parameter] = {}
    for cls in target.__mro__ if inspect.isclass(target) else [target]:
        if cls is not target and not cls.__module__.startswith("mmrobust."):
            break
        constructor = cls.__init__ if inspect.isclass(cls) else cls
        own = [p for p in inspect.signature(constructor).parameters.values() if p.name != "self"]
        passes_on = any(p.kind is p.VAR_KEYWORD for p in own)
        found |= {p.name: p for p in own if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if not passes_on:
            break
    return list(found.values())


@pytest.mark.parametrize("path", OURS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_yaml_has_the_keys_of_the_constructor(path: Path) -> None:
    keys = yaml.safe_load(path.read_text())
    expected = parameters(get_object(keys["_target_"]))
    special = {"_target_", "_partial_", "defaults"}
    source, own = get_object(keys["_target_"]), inspect.signature(get_object(keys["_target_"]).__init__)
    fixed = set(re.findall(r"super\(\)\.__init__\(\s*(\w+)=", inspect.getsource(source))) - set(
        own.parameters
    )
    given = GIVEN_AT_BUILD | ({"optimizer"} if path.parent.name == "schedule" else set())
    names = {p.name for p in expected} - given - fixed
    assert set(keys) - special == names
    assert [p.name for p in expected if p.default is not p.empty] == []


def test_all_methods_data_and_fusions_are_looked_at() -> None:
    folders = {"method", "data", "fusion", "pattern"}
    files = {path for folder in folders for path in conf_folder().rglob(f"{folder}/*.yaml")}
    assert files <= set(OURS)


@pytest.mark.parametrize(
    "path", sorted((conf_folder() / "encoder").glob("*.yaml")), ids=lambda path: path.stem
)
def test_encoders_have_the_keys_of_build_encoder(path: Path) -> None:
    from mmrobust.models.encoders import build_encoder

    expected = {p.name for p in parameters(build_encoder)} - {"modality"}
    # the defaults bring the decoder, and the optimizer is told the factor
    keys = set(yaml.safe_load(path.read_text())) - {"defaults", "lr_factor"}
    assert keys == expected


def test_the_trainer_has_lightnings_keys() -> None:
    from lightning import Trainer

    ours = {"logger", "callbacks", "enable_checkpointing", "use_distributed_sampler", "default_root_dir"}
    theirs = set(inspect.signature(Trainer.__init__).parameters) - {"self"} - ours
    assert set(compose_config([]).trainer) <= theirs | {"compile"}


@pytest.mark.parametrize("name", sorted(p.stem for p in (conf_folder() / "experiment").glob("*.yaml")))
def test_an_experiment_sets_what_it_says(name: str) -> None:
    """Also keys of conf/config.yaml itself, which must not come behind it."""
    config = compose_config([f"experiment={name}"])
    written = OmegaConf.load(conf_folder() / "experiment" / f"{name}.yaml")
    for recipe in [entry for entry in written.pop("defaults", []) if str(entry).startswith("/experiment/")]:
        shared = OmegaConf.load(conf_folder() / f"{str(recipe).removeprefix('/')}.yaml")
        shared.pop("defaults", None)
        written = OmegaConf.merge(shared, written)
    plain: Any = OmegaConf.to_container(config)
    for key, value in flat(OmegaConf.to_container(written)):
        node = plain
        for part in key.split("."):
            node = node[part]
        assert node == value, key


def flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its dotted key."""
    if not isinstance(node, dict):
        yield path, node
        return
    for key, child in node.items():
        yield from flat(child, f"{path}.{key}" if path else str(key))
