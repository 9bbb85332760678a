"""The table of keys fits the configuration that it is about."""

import pytest
from omegaconf import OmegaConf

from mmrobust.config.compose import compose_config
from mmrobust.config.keys import KEYS, NOT_IN_HASH, ON_RESUME, either, encoder_entries, is_text, is_typed

# Keys of some data, methods or loggers alone.
ELSEWHERE = (
    "data.root",
    "data.manifest",
    "data.file",
    "data.cache",
    "data.inferred",
    "method.teacher.run",
    "logger.wandb",
)


@pytest.mark.parametrize(
    "name", [name for name in KEYS if "*" not in name and not name.startswith(ELSEWHERE)]
)
def test_every_key_is_there(name: str) -> None:
    config = compose_config(["data=synthetic"])
    group, _, last = name.rpartition(".")
    node = OmegaConf.select(config, group) if group else config
    assert last in node or name.startswith("sweep.")


def test_what_resuming_may_change_is_in_no_hash() -> None:
    assert set(ON_RESUME) <= set(NOT_IN_HASH)


def test_types() -> None:
    assert not is_typed("trainer.devices")
    assert not is_typed("trainer.compile")
    assert is_typed("trainer.max_epochs")


def test_paths_and_names() -> None:
    assert is_text("paths.run")
    assert is_text("encoder.rgb.weights")
    assert not is_text("method.weights")


def test_entries_of_modalities() -> None:
    encoder = {"name": "tiny", "options": {"a": 1}, "decoder": {"widths": [8]}, "audio": {"name": "resnet18"}}
    assert encoder_entries(encoder) == {"audio": {"name": "resnet18"}}


def test_words() -> None:
    assert either((False, True, "default")) == "false, true or default"
    assert either(("a", "b")) == "a or b"
