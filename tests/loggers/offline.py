"""W&B without a login, key or network, and what an offline run has written."""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import wandb
from omegaconf import DictConfig, OmegaConf
from wandb.proto import wandb_internal_pb2

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.loggers.wandb_logger import WandbLogger


def compose(seed: int, *overrides: str) -> DictConfig:
    return compose_config(["method=dmrnet", "data=synthetic", "logger=wandb", f"seed={seed}", *overrides])


def config(seed: int, *overrides: str) -> dict[str, Any]:
    """As `training` hands it to the loggers."""
    return cast(dict[str, Any], OmegaConf.to_container(compose(seed, *overrides), resolve=True))


class NoStdin:
    """A terminal at which nobody sits."""

    def isatty(self) -> bool:
        return True

    def close(self) -> None:
        """A forked process does that."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"stdin.{name} was used")


@pytest.fixture(autouse=True)
def nobody_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """No login, key, network or terminal; a test module that imports it has it for each test."""
    for name in list(os.environ):
        if name.startswith("WANDB_") or name == "NETRC":
            monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", NoStdin())
    wandb.teardown()
    yield
    wandb.teardown()


def make(folder: Path, **changes: Any) -> WandbLogger:
    return cast(WandbLogger, construct(compose(0).logger.wandb, save_dir=str(folder), **changes))


def records(folder: Path) -> list[Any]:
    """What W&B wrote: a LevelDB log (7 bytes of header, blocks of 32 KiB, records in fragments)."""
    (path,) = folder.glob("*.wandb")
    content, position, parts, found = path.read_bytes(), 7, b"", []
    assert content[:4] == b":W&B"
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", content, position)
        parts += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or the last fragment
            record = wandb_internal_pb2.Record.FromString(parts)  # type: ignore[attr-defined]
            found.append(record)
            parts = b""
    return found


class Written:
    """One offline run as `wandb sync` would find it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.history: dict[str, Any] = {}  # the last value of every key
        self.rows: list[dict[str, Any]] = []  # as they were logged
        self.artifacts: list[Any] = []
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        for record in records(folder):
            which = record.WhichOneof("record_type")
            if which == "run":
                self.run = record.run
                self._read(self.config, record.run.config.update)
            elif which == "config":
                self._read(self.config, record.config.update)
            elif which == "history":
                self.rows.append({})
                for into in (self.history, self.rows[-1]):
                    self._read(into, record.history.item)
            elif which == "artifact":
                self.artifacts.append(record.artifact)
            elif which == "summary":
                self._read(self.summary, record.summary.update)
            elif which == "exit":
                self.exit_code = record.exit.exit_code

    @staticmethod
    def _read(into: dict[str, Any], items: Any) -> None:
        for item in items:
            *parents, last = item.nested_key or [item.key]
            node = into
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = json.loads(item.value_json)

    def file(self, key: str) -> Path:
        return self.folder / "files" / self.history[key]["path"]


def runs(folder: Path) -> list[Written]:
    wandb.teardown()  # all is written when the service has stopped
    return [Written(path) for path in sorted((folder / "wandb").glob("offline-run-*"))]
