"""One run's table and picture."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from mmrobust.combinations import all_combinations
from mmrobust.evaluation.results import shown_combinations
from mmrobust.reporting.run_table import plot_combinations, result_table


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


def test_of_very_many_combinations_some_are_shown(tmp_path: Path, results: dict[str, Any]) -> None:
    combinations = all_combinations([f"m{i}" for i in range(7)])
    rows = {
        "+".join(c): {"n": 5, "metrics": {"accuracy": i / 200, "ece": 0.1}}
        for i, c in enumerate(combinations)
    }
    rows["m2+m4"]["metrics"]["accuracy"], rows["m0+m1+m2"]["metrics"]["accuracy"] = 0.0, 0.99
    rows["m0"]["metrics"]["accuracy"] = 0.1
    results["combinations"] = rows
    shown = [*(f"m{i}" for i in range(7)), "m2+m4", "m0+m1+m2", "m0+m1+m2+m3+m4+m5+m6"]
    assert list(shown_combinations(results)) == shown
    console = Console(file=io.StringIO(), width=100)
    console.print(result_table(results, "title"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "117 more: results.json" in text
    plot_combinations(results, tmp_path / "a.png", "title")
    assert Image.open(tmp_path / "a.png").height < 1000
    del rows["m0+m1+m2+m3+m4+m5+m6"]
    results["combinations"] = dict(list(rows.items())[:63])
    assert list(shown_combinations(results)) == list(results["combinations"])
