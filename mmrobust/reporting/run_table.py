"""The table and the figure of one run's result over combinations."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrobust.evaluation.results import ARROWS
from mmrobust.reporting.figures import save_figure
from mmrobust.tasks.metric import metric_named

if TYPE_CHECKING:
    from rich.table import Table
from mmrobust.evaluation.results import shown_combinations


def show(results: dict[str, Any], title: str, paths: dict[str, Path]) -> None:
    """Print the table and the paths of the run's files."""
    from rich.console import Console

    # In a file nothing needs to be cut to the width of a terminal.
    Console(width=None if sys.stdout.isatty() else 160).print(result_table(results, title))
    for label, path in paths.items():
        print(f"{label:<11}{path}")


def in_one_line(results: Mapping[str, Any]) -> str:
    """The main scores in one line: the objective for a study's trial, the aggregates for any other run."""
    metric = results["primary"]["metric"]
    chosen = results.get("selection", {}).get("value")
    if results["identity"].get("study") and chosen is not None:
        return f"validation score {chosen:.4f}"
    scores = {name: results["aggregates"][name].get(metric) for name in ("average", "worst", "full")}
    return f"{metric} " + ", ".join(
        f"{name} {'-' if x is None else f'{x:.4f}'}" for name, x in scores.items()
    )


def measured_under(protocol: Mapping[str, Any]) -> str:
    """The test's missing modalities and noise, in words; empty for a complete and clean test."""
    words = []
    for part in (protocol["missing"]["test"]["protocol"], protocol["noise"]["test"]["protocol"]):
        if part["name"] not in ("complete", "clean"):
            values = (v for k, v in part.items() if k not in ("name", "seed") and v not in (None, []))
            told = ("+".join(map(str, v)) if isinstance(v, list) else str(v) for v in values)
            words.append(" ".join([str(part["name"]), *told]))
    return ", ".join(words)


def sample_in_words(protocol: Mapping[str, Any]) -> str:
    """A note that the combinations are a sample; empty if all were evaluated."""
    sample = protocol.get("sample")
    return f"a sample of {sample['combinations']} of {sample['of']} combinations" if sample else ""


def result_table(results: Mapping[str, Any], title: str) -> Table:
    """Make a table with a row for every shown combination, then the aggregates."""
    from rich.table import Table

    rows = shown_combinations(results)
    metrics = list(next(row["metrics"] for row in results["combinations"].values() if row))
    table = Table(title=title, title_justify="left")
    table.add_column("combination")
    table.add_column("n", justify="right")
    for metric in metrics:
        arrow = ARROWS[metric_named(metric, results).direction]
        table.add_column(f"{metric} {arrow}", justify="right")
    for name, row in rows.items():
        table.add_row(
            name, *([str(row["n"])] if row else ["-"]), *_cells(row["metrics"] if row else {}, metrics)
        )
    if hidden := len(results["combinations"]) - len(rows):
        table.add_row(f"{hidden} more: results.json")
    table.add_section()
    captions = [words] if (words := sample_in_words(results["protocol"])) else []
    shown = ["average", "worst"] + (["available"] if not _is_full(results) else [])
    for name in shown:
        table.add_row(name, "", *_cells(results["aggregates"][name], metrics), style="bold")
    if "available" in shown:
        captions.append("available: each sample from all that it has")
    table.caption, table.caption_justify = "\n".join(captions) or None, "left"
    return table


def _is_full(results: Mapping[str, Any]) -> bool:
    return results["aggregates"]["available"] == results["aggregates"]["full"]


def _cells(values: Mapping[str, float | None], metrics: list[str]) -> list[str]:
    return ["-" if values.get(m) is None else f"{values[m]:.4f}" for m in metrics]


def plot_combinations(results: Mapping[str, Any], path: Path, title: str) -> None:
    """Plot the primary metric as a bar for every shown combination, with the average as a line."""
    from matplotlib.figure import Figure

    metric = results["primary"]["metric"]
    names = [name for name, row in shown_combinations(results).items() if row]
    values = [results["combinations"][name]["metrics"][metric] or 0.0 for name in names]
    described = metric_named(metric, results)
    most = max([1.0, *values] if described.percent else values, default=1.0)
    sizes = [name.count("+") for name in names]
    figure = Figure(figsize=(5, 1.2 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(names)), values, color=[f"C{size % 10}" for size in sizes])
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    for i, value in enumerate(values):
        label = axes.text(max(value, 0) + 0.01 * most, i, f"{value:.3f}", va="center", fontsize=8)
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # above the dotted line
    average = results["aggregates"]["average"][metric]
    if average is not None:
        axes.axvline(average, color="black", linestyle=":", linewidth=1)
        axes.set_xlabel(f"{described.label} {ARROWS[described.direction]} (dotted: average {average:.3f})")
    axes.set_xlim(min([0.0, *values]), most * 1.12)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path, 110)
