"""What comes from the environment, and what is secret, reaches no file of a run's folder and nothing that is printed."""

import os
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

from mmrobust.config.hidden import hide, reveal
from mmrobust.errors import HIDDEN, UserError, masked
from mmrobust.run import main

CANARY = "canary-5f3a91"
SMALL = [
    "data=synthetic",
    "data.num_train=16",
    "data.num_val=8",
    "data.num_test=8",
    "data.batch_size=8",
    "encoder.width=8",
    "method=dropout",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "allow=[tests]",
]

heard: list[str] = []


class Listener(Callback):
    def __init__(self, word: str, address: str, api_key: str, given: list[str]) -> None:
        heard.extend([word, address, api_key, *given])

    def on_train_start(self, *_: Any) -> None:
        if "refuse" in os.environ.get("LISTENER", ""):
            raise UserError(f"cannot reach {heard[0]}")


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WORD", CANARY)
    monkeypatch.setenv("DATABASE_URL", f"postgresql://me:{CANARY}@host/db")
    monkeypatch.delenv(HIDDEN, raising=False)
    heard.clear()
    (tmp_path / "conf" / "callbacks").mkdir(parents=True)
    (tmp_path / "conf" / "callbacks" / "mine.yaml").write_text(
        "mine:\n  _target_: tests.config.test_hidden.Listener\n  word: ${oc.env:WORD}\n  address: ${oc.env:DATABASE_URL}\n"
        "  api_key: none\n  given: ['${oc.env:WORD}', '${callbacks.mine.word}']\n"
    )
    return str(tmp_path / "conf")


def holding(folder: Path) -> list[Path]:
    """Files that hold it."""
    return [path for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


def test_a_run(
    conf: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = [
        *SMALL,
        "--config-dir",
        conf,
        "callbacks=[default,mine]",
        f"callbacks.mine.api_key={CANARY}",
        "logger=both",
        f"paths.run={tmp_path}/run",
    ]
    monkeypatch.setenv("LISTENER", "refuse")
    assert main(run) == 2
    assert heard == [CANARY, f"postgresql://me:{CANARY}@host/db", CANARY, CANARY, CANARY]
    monkeypatch.delenv("LISTENER")
    # the same command goes on; later nobody knows it
    assert main(run) == 0
    assert holding(tmp_path / "run") == []
    told = capfd.readouterr()
    assert CANARY not in told.out + told.err
    assert "cannot reach ***" in told.err
    monkeypatch.delenv(HIDDEN)
    (tmp_path / "run" / "results.json").unlink()
    assert main([f"resume={tmp_path}/run", "allow=[tests]"]) == 2
    assert "callbacks.mine.word, callbacks.mine.address" in capfd.readouterr().err


def test_what_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HIDDEN, raising=False)
    monkeypatch.setenv("ROOT", "/mnt/data")
    monkeypatch.setenv("WORD", CANARY)
    given = {
        "data": {"root": "${oc.env:ROOT}/x"},
        "callbacks": {
            "x": {
                "token": "abcd",
                "tokens": 4,
                "place": "${oc.env:ROOT}",
                "word": "${oc.env:WORD}",
                "url": "s3://me:pw@host",
            }
        },
    }
    config = OmegaConf.create(given)
    hidden = hide(config)
    assert hidden["data"]["root"] == "/mnt/data/x"
    assert hidden["callbacks"]["x"] == {
        "token": "***",
        "tokens": 4,
        "place": "/mnt/data",
        "word": "***",
        "url": "***",
    }
    assert reveal(OmegaConf.create(hidden)).callbacks.x.url == "s3://me:pw@host"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("+callbacks.x.token=abc", "+callbacks.x.token=***"),
        ("+callbacks.x={_target_: a.B,api_key: abc}", "+callbacks.x={_target_: a.B,api_key: ***}"),
        ("token=${oc.env:X}", "token=${oc.env:X}"),
        ("data.size=3 encoder.options.tokens=4", "data.size=3 encoder.options.tokens=4"),
    ],
)
def test_texts(text: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HIDDEN, raising=False)
    assert masked(text) == told
