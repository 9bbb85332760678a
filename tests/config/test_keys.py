"""The table of keys fits the configuration that it is about."""

import pytest
from omegaconf import OmegaConf

from mmrobust.config.compose import compose_config
from mmrobust.config.keys import KEYS, NOT_IN_HASH, ON_RESUME, either, encoder_entries, is_typed

# Keys of some data or sweeps alone.
ELSEWHERE = ("data.root", "data.manifest", "data.cache", "data.inferred", "data.file", "method.teacher.run")


@pytest.mark.parametrize("name", [name for name in KEYS if "*" not in name and name not in ELSEWHERE])
def test_every_key_is_there(name: str) -> None:
    config = compose_config(["data=synthetic", "logger=both"])
    group, _, last = name.rpartition(".")
    node = OmegaConf.select(config, group) if group else config
    assert last in node or name.startswith("sweep.")


def test_what_resuming_may_change_is_in_no_hash() -> None:
    assert set(ON_RESUME) <= set(NOT_IN_HASH)


def test_types() -> None:
    assert not is_typed("trainer.devices")
    assert not is_typed("trainer.compile")
    assert is_typed("trainer.max_epochs")


def test_entries_of_modalities() -> None:
    encoder = {"name": "tiny", "options": {"a": 1}, "decoder": {"widths": [8]}, "audio": {"name": "resnet18"}}
    assert encoder_entries(encoder) == {"audio": {"name": "resnet18"}}


def test_words() -> None:
    assert either((False, True, "default")) == "false, true or default"
    assert either(("a", "b")) == "a or b"
