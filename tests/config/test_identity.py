"""What names a run's folder, and the configuration that lies in it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmrobust.config.compose import compose_config
from mmrobust.config.identity import config_hash, load_run_config, run_folder
from mmrobust.config.keys import NOT_IN_RECIPE
from mmrobust.errors import UserError


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
    assert run_folder(compose_config(["paths.outputs=x"])) == Path("x") / "dmrnet_digits" / plain
    assert run_folder(compose_config(["paths.run=y"])) == Path("y")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run's folder: it has no config\.yaml"):
        load_run_config(tmp_path)


def test_an_older_configuration_is_as_if_it_had_the_later_keys(tmp_path: Path, plain: str) -> None:
    config = compose_config([])
    OmegaConf.set_struct(config, False)
    for key in ("keep", "test_rates", "allow", "lr_scaling", "study"):
        config.pop(key)
    config.trainer.pop("compile")
    OmegaConf.save(config, tmp_path / "config.yaml", resolve=True)
    upgraded = load_run_config(tmp_path)
    assert config_hash(upgraded) == plain
    assert (upgraded.keep, upgraded.study.name, upgraded.trainer.compile) == ("all", None, False)
