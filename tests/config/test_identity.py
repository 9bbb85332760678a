"""What names a run's folder, and the configuration that lies in it: written whole and without passwords, read as what
may be somebody else's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmrobust.config.compose import compose_config
from mmrobust.config.identity import DamagedError, config_hash, load_run_config, run_folder, save_run_config
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_run_config(compose_config([]), tmp_path)
    return tmp_path


def test_it_is_written_resolved_and_whole(folder: Path) -> None:
    assert "${" not in (folder / "config.yaml").read_text()
    assert load_run_config(folder).method.seed == 0
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_no_password_is_written(folder: Path) -> None:
    config = compose_config(["study.name=s", "study.storage='mysql://user:secret@host/db?password=secret'"])
    save_run_config(config, folder)
    assert "secret" not in (folder / "config.yaml").read_text()
    assert load_run_config(folder).study.storage == "mysql://***@host/db?password=***"
    assert "secret" not in str(UserError(f"cannot read {config.study.storage}"))


DAMAGE = {
    "empty": b"",
    "cut short": b"seed: 0\nmethod:\n  _target_: mmrobust.meth",
    "a list": b"- 1\n",
    "a number": b"3\n",
    "no YAML": b"a: [1\nb: }",
    "binary": bytes(range(256)),
    "deep": b"[" * 100_000,
    "aliases": b"a: &a [1]\nb: *a\n",
    "large": b"a: " + b"x" * 2**21,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_message(damage: str, folder: Path) -> None:
    (folder / "config.yaml").write_bytes(DAMAGE[damage])
    with pytest.raises(DamagedError, match=r"config\.yaml is damaged: .* writes it anew"):
        load_run_config(folder)


@pytest.mark.parametrize("text", ["${oc.env:HOME}", r"\${oc.env:HOME}", "x${seed}", "${oc.decode:x}"])
def test_references_are_refused(text: str, folder: Path) -> None:
    plain = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert isinstance(plain, dict)
    plain["encoder"]["options"] = {"x": [text]}
    OmegaConf.save(OmegaConf.create(plain), folder / "config.yaml")
    with pytest.raises(UserError, match=r"encoder\.options\.x\[0\] refers to something else"):
        load_run_config(folder)


@pytest.mark.parametrize("name", ["log.txt", "evaluations", "checkpoints/last.ckpt", "config.yaml"])
def test_links_out_of_the_folder_are_not_followed(
    name: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "file"
    outside.write_text((folder / "config.yaml").read_text())
    link = folder / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    with pytest.raises(UserError, match=r"is a link to .*outside.*, out of the run's folder"):
        load_run_config(folder)


def test_links_within_the_folder_and_pipes(folder: Path) -> None:
    (folder / "again.yaml").symlink_to("config.yaml")
    load_run_config(folder)
    os.mkfifo(folder / "log.txt")
    with pytest.raises(UserError, match=r"log\.txt is neither a file nor a folder"):
        load_run_config(folder)
