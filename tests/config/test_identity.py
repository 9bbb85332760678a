"""A run's config.yaml: written whole and without passwords, read as what may be somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmrobust.config.compose import compose_config
from mmrobust.config.identity import DamagedError, load_run_config, save_run_config
from mmrobust.errors import UserError


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
