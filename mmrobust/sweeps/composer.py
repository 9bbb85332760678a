"""The configurations of a sweep's jobs, composed once for all that differ in values alone. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from mmrobust.config.compose import compose_config
from mmrobust.config.groups import group_options
from mmrobust.config.overrides import parse, text_of

# Keys that others follow from when a configuration is composed.
DECIDING = ("data.manifest", "data.columns", "data.modalities", "encoder", "paths", "lr_scaling", "hydra")


class Composer:
    """Composing reads dozens of files; setting a value in what was composed does not.

    Args:
        config_dir: the user's folder of further configurations.
    """

    def __init__(self, config_dir: str | None) -> None:
        self.config_dir = config_dir
        self.groups = set(group_options(config_dir))
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """What `compose_config` gives."""
        parsed = [parse(text) for text in overrides]
        late = [o for o in parsed if self.is_late(o)]
        first = tuple(text_of(o) for o in parsed if o not in late)
        if first not in self.composed:
            self.composed[first] = compose_config(first, self.config_dir)
        if self.composed[first].lr_scaling.rule != "none":
            return compose_config(overrides, self.config_dir)
        config = self.composed[first].copy()
        ConfigLoaderImpl._apply_overrides_to_config(late, config)
        return config

    def is_late(self, override: Override) -> bool:
        """Whether an override sets a value on which no other key hangs, so that it can be set at last."""
        key = override.key_or_group
        plain = not (override.is_add() or override.is_force_add() or override.is_delete() or override.package)
        deciding = any(key == name or key.startswith(f"{name}.") for name in DECIDING)
        return plain and key not in self.groups and "/" not in key and not deciding
