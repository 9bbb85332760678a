"""One run's result: the table and the picture over combinations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrobust.reporting.figures import save_figure

if TYPE_CHECKING:
    from rich.table import Table


def show(results: dict[str, Any], title: str, paths: dict[str, Path]) -> None:
    """Print the table, and where things are."""
    from rich.console import Console

    Console().print(result_table(results, title))
    for label, path in paths.items():
        print(f"{label:<11}{path}")


def result_table(results: Mapping[str, Any], title: str) -> Table:
    """A row for every combination, then the aggregates."""
    from rich.table import Table

    rows = results["combinations"]
    metrics = list(next(row["metrics"] for row in rows.values() if row))
    table = Table(title=title, title_justify="left")
    table.add_column("combination")
    table.add_column("n", justify="right")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for name, row in rows.items():
        table.add_row(
            name, *([str(row["n"])] if row else ["-"]), *_cells(row["metrics"] if row else {}, metrics)
        )
    table.add_section()
    shown = ["average", "worst"] + (["available"] if not _is_full(results) else [])
    for name in shown:
        table.add_row(name, "", *_cells(results["aggregates"][name], metrics), style="bold")
    return table


def _is_full(results: Mapping[str, Any]) -> bool:
    return results["aggregates"]["available"] == results["aggregates"]["full"]


def _cells(values: Mapping[str, float | None], metrics: list[str]) -> list[str]:
    return ["-" if values.get(m) is None else f"{values[m]:.4f}" for m in metrics]


def plot_combinations(results: Mapping[str, Any], path: Path, title: str) -> None:
    """A bar for every combination: the primary metric, with the average as a line."""
    from matplotlib.figure import Figure

    metric = results["primary"]["metric"]
    names = [name for name, row in results["combinations"].items() if row]
    values = [results["combinations"][name]["metrics"][metric] or 0.0 for name in names]
    sizes = [name.count("+") for name in names]
    figure = Figure(figsize=(5, 1.2 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(names)), values, color=[f"C{size % 10}" for size in sizes])
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    for i, value in enumerate(values):
        label = axes.text(value + 0.01, i, f"{value:.3f}", va="center", fontsize=8)
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # above the dotted line
    average = results["aggregates"]["average"][metric]
    if average is not None:
        axes.axvline(average, color="black", linestyle=":", linewidth=1)
        axes.set_xlabel(f"{metric} (dotted: average {average:.3f})")
    axes.set_xlim(0, max([1.0, *values]) * 1.12)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path, 110)
