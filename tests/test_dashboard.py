"""The specification of the dashboard, without a server: complete, read back by its package, and about what runs log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmrobust.dashboard import main
from tests.loggers.offline import nobody_logged_in as nobody_logged_in
from tests.loggers.offline import runs
from tests.runs import tiny


def specification(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def words(node: Any) -> Iterator[str]:
    """Every text in it."""
    if isinstance(node, str):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from words(child)


def panels(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict) and "viewType" in node:
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from panels(child)


def test_of_a_choice_of_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["me/robust", "data=synthetic", "data.num_modalities=3", "--output", str(tmp_path / "a/spec.json")]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "7 combinations, accuracy" in printed
    assert "wandb login" in printed
    plain = specification(tmp_path / "a/spec.json")
    sections = plain["workspace"]["section"]["panelBankConfig"]["sections"]
    assert [s["name"] for s in sections] == ["Methods", "Combinations", "Missing rate", "Sweeps"]
    titles = [p["config"]["chartTitle"] for p in sections[1]["panels"]]
    assert titles[:7] == ["m1", "m2", "m3", "m1+m2", "m1+m3", "m2+m3", "m1+m2+m3"]
    for part in plain.values():
        kinds = {panel["viewType"] for panel in panels(part)}
        assert kinds >= {"Bar Chart", "Run History Line Plot", "Scatter Plot", "Parallel Coordinates Plot"}
        assert {"config:missing.train.rate.value", "method.value", "test/m1+m3/accuracy"} <= set(words(part))
    assert main(["me/robust", "data=nyuv2", "--output", str(tmp_path / "n.json")]) == 0
    assert "test/rgb+depth/miou" in set(words(specification(tmp_path / "n.json")))


@pytest.mark.slow
def test_shows_what_runs_log(tmp_path: Path) -> None:
    """Every metric, picture and key of the configuration that a panel names is in a run's files."""
    from mmrobust.run import main as run

    keys = ["missing=mcar", "missing.train.rate=0.3", "trainer.log_every_n_steps=1"]
    assert run([*tiny(*keys), "logger=wandb", f"paths.outputs={tmp_path}/out"]) == 0
    assert (
        main(["me/robust", "--outputs", str(tmp_path / "out"), "--output", str(tmp_path / "spec.json")]) == 0
    )
    (written,) = runs(next((tmp_path / "out").glob("dmrnet_synthetic/*")))
    logged = written.history | written.summary
    named = set(words(specification(tmp_path / "spec.json")))
    metrics = {text.removeprefix("summary:") for text in named}
    metrics = {text for text in metrics if text.startswith(("test/", "val/", "train/", "trainer/"))}
    assert len(metrics) > 10
    assert metrics <= logged.keys()
    keys = [text.removeprefix("config:") for text in named if text.endswith(".value")]
    assert {key.removesuffix(".value") for key in keys} <= written.config.keys()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["robust", "data=avmnist"], "'robust' does not say where: give <entity>/<project>"),
        (["me/robust"], "say which combinations there are"),
        (["me/robust", "data=avmnistt"], "did you mean avmnist"),
        (["me/robust", "--outputs", "."], "no finished run"),
        (["me/robust", "data=avmnist", "--output", "/proc/here.json"], "cannot be written"),
    ],
)
def test_mistakes(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert message in capsys.readouterr().err


def test_a_server_that_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is there; the error says what to do."""
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert main(["me/robust", "data=avmnist", "--output", str(tmp_path / "spec.json")]) == 2
    assert f"The specification is in {tmp_path}/spec.json" in capsys.readouterr().err
    assert specification(tmp_path / "spec.json").keys() == {"workspace", "report"}
