"""The configuration: its hash, the run's folder, what it builds; every key stands in the YAML."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_object
from omegaconf import OmegaConf

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config, conf_folder
from mmrobust.config.identity import config_hash, load_run_config, run_folder
from mmrobust.config.keys import NOT_IN_RECIPE
from mmrobust.config.rules import modality_names
from mmrobust.errors import UserError

TABLE = Path(__file__).parents[1] / "data/table.csv"  # columns id, label, rgb, audio


# The hash and the folder


def hashed(*overrides: str, without: Sequence[str] = ()) -> str:
    return config_hash(compose_config(overrides), without)


@pytest.fixture(scope="module")
def plain() -> str:
    return hashed()


def test_the_hash_does_not_follow_what_changes_no_number(plain: str) -> None:
    same = (
        "paths.outputs=elsewhere paths.run=here paths.data=there logger=both threads=2 data.workers=3 seed=0"
    )
    more = "trainer.enable_progress_bar=false trainer.log_every_n_steps=1 allow=[mine] method=dmrnet"
    assert hashed(*same.split(), *more.split()) == plain


def test_the_hash_follows_what_may_change_numbers(plain: str) -> None:
    changes = {
        "seed": 1,
        "data.seed": 1,
        "missing.seed": 1,
        "noise.seed": 1,
        "missing.train._target_": "mmrobust.missing.Uniform",
        "optimizer.lr": 0.5,
        "method.kl_weight": 0.5,
        "encoder.m2.width": 8,
        "trainer.max_epochs": 3,
        "selection": "last",
        "data.num_train": 100,
        "callbacks": {"x": {"_target_": "lightning.X"}},
    }
    hashes = {"nothing": plain}
    config = compose_config([])
    for key, value in changes.items():
        changed = config.copy()
        OmegaConf.update(changed, key, value, force_add=True)
        hashes[key] = config_hash(changed)
    assert len(set(hashes.values())) == len(hashes), hashes


def test_the_recipe_leaves_out_the_seed(plain: str) -> None:
    recipe = hashed(without=NOT_IN_RECIPE)
    assert hashed("seed=7", without=NOT_IN_RECIPE) == recipe != plain
    assert hashed("data.seed=7", without=NOT_IN_RECIPE) != recipe


def test_the_hash_of_a_saved_configuration_is_the_same(tmp_path: Path, plain: str) -> None:
    OmegaConf.save(compose_config([]), tmp_path / "config.yaml", resolve=True)
    assert config_hash(load_run_config(tmp_path)) == plain


def test_run_folder(plain: str) -> None:
    assert run_folder(compose_config(["paths.outputs=x"])) == Path("x") / "dmrnet_synthetic" / plain
    assert run_folder(compose_config(["paths.run=y"])) == Path("y")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run's folder: it has no config\.yaml"):
        load_run_config(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["data=cremad"], ["audio", "visual"]),
        (["data=avmnist"], ["image", "audio"]),
        ([], ["m1", "m2"]),
        (["data.num_modalities=3"], ["m1", "m2", "m3"]),
        (["data.num_modalities=8"], [f"m{i + 1}" for i in range(8)]),
        (["data.task=segmentation"], ["rgb", "depth"]),
        (["data.task=segmentation", "data.num_modalities=3"], ["rgb", "depth", "infrared"]),
    ],
    ids=str,
)
def test_modality_names(overrides: list[str], names: list[str]) -> None:
    assert modality_names(compose_config(overrides)) == names


def test_choices_are_recorded() -> None:
    choices = compose_config(["method=late", "data=avmnist", "missing=mcar"]).choices
    assert (choices.method, choices.data, choices.missing, choices.optimizer) == (
        "late",
        "avmnist",
        "mcar",
        "adamw",
    )


def test_what_cannot_be_imported() -> None:
    node = OmegaConf.create({"x": {"_target_": "tests.toys.Nothing"}})
    with pytest.raises(UserError, match=r"_target_=tests\.toys\.Nothing cannot be imported: .*PYTHONPATH"):
        construct(node.x)


def test_construct_keeps_objects_and_errors() -> None:
    node = OmegaConf.create({"_target_": "mmrobust.missing.MCAR"})
    rate = {"audio": 0.5}
    assert construct(node, rate=rate).rate is rate
    with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
        construct(node, foo=1)
    node.bar = 1
    with pytest.raises(UserError, match=r"keys of mmrobust\.missing\.MCAR do not fit: .*'bar'"):
        construct(node, rate=0)


def test_a_name_that_leads_elsewhere_is_not_called(tmp_path: Path) -> None:
    command = f"touch {tmp_path}/trap"
    node = OmegaConf.create({"_target_": "mmrobust.errors.os.system", "command": command})
    for nested in (node, OmegaConf.create({"_target_": "mmrobust.missing.MCAR", "rate": node})):
        with pytest.raises(UserError, match=r"leads to posix\.system, no class|outside the packages"):
            construct(nested)
    assert list(tmp_path.iterdir()) == []


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
    fixed = set(re.findall(r"super\(\)\.__init__\((\w+)=", inspect.getsource(source))) - set(own.parameters)
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
    keys = set(yaml.safe_load(path.read_text())) - {"defaults"}  # which bring the decoder
    assert keys == expected


def test_the_trainer_has_lightnings_keys() -> None:
    from lightning import Trainer

    ours = {"logger", "callbacks", "enable_checkpointing", "use_distributed_sampler", "default_root_dir"}
    theirs = set(inspect.signature(Trainer.__init__).parameters) - {"self"} - ours
    assert set(compose_config([]).trainer) <= theirs | {"compile"}
