"""One run's table and picture."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mmrobust.reporting.run_table import plot_combinations, result_table


@pytest.fixture
def results() -> dict[str, Any]:
    def metrics(accuracy: float | None) -> dict[str, float | None]:
        return {"accuracy": accuracy, "ece": None if accuracy is None else 0.125}

    return {
        "schema": 1,
        "status": "complete",
        "primary": {"metric": "accuracy", "direction": "max"},
        "combinations": {
            "audio": {"n": 7, "metrics": metrics(0.25)},
            "visual": None,
            "audio+visual": {"n": 0, "metrics": metrics(None)},
        },
        "aggregates": {name: metrics(0.5) for name in ("average", "worst", "full", "available")},
    }


def shown(results: dict[str, Any]) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=100)
    console.print(result_table(results, "a title"))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]


def test_the_table_has_a_row_for_every_combination(results: dict[str, Any]) -> None:
    assert shown(results) == [
        ["audio", "7", "0.2500", "0.1250"],
        ["visual", "-", "-", "-"],
        ["audio+visual", "0", "-", "-"],
        ["average", "", "0.5000", "0.1250"],
        ["worst", "", "0.5000", "0.1250"],
    ]


def test_available_is_shown_where_it_differs_from_full(results: dict[str, Any]) -> None:
    results["aggregates"]["available"] = {"accuracy": 0.375, "ece": None}
    assert shown(results)[-1] == ["available", "", "0.3750", "-"]


@pytest.mark.parametrize("average", [0.5, None])
def test_the_picture(tmp_path: Path, results: dict[str, Any], average: float | None) -> None:
    results["aggregates"]["average"]["accuracy"] = average
    plot_combinations(results, tmp_path / "combinations.png", "a title")
    content = (tmp_path / "combinations.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    assert width > 100
    assert height > 100
