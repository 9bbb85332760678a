"""Missing-rate curves: what trained runs do when more and more of the test's modalities are missing. Imports no torch.

A point is a run's tested checkpoint on samples of which every modality is missing at random with that rate: each is
predicted from what is left of it (`aggregates.available`). A curve is the mean over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mmrobust.errors import UserError
from mmrobust.evaluation.results import read_results
from mmrobust.reporting.figures import save_figure
from mmrobust.reporting.runs import Run
from mmrobust.reporting.tables import Cell, Table, cell, varying
from mmrobust.tasks.metric import metric_named

NOT_IN_LABEL = ("method", "missing.", "train masks", "recipe", "seed")  # beginnings of keys

# Data and metric -> label -> test rate -> the score of every run.
Curves = dict[str, dict[str, dict[float, list[float]]]]


def read_curves(runs: Sequence[Run], metric: str | None = None) -> Curves:
    """The evaluations of runs at several rates of missing modalities.

    Args:
        runs: as read for the report.
        metric: another metric than the primary one.
    """
    evaluated = [(run, points) for run in runs if len(points := _points(run, metric)) > 1]
    shown = [key for key in varying([run.row for run, _ in evaluated]) if not key.startswith(NOT_IN_LABEL)]
    curves: Curves = {}
    for run, points in evaluated:
        heading = " · ".join(run.table[key] for key in ("data", "split", "metric"))
        trained = run.row["missing.train"].replace("mcar rate=", "missing ")
        words = [
            run.row.get("method", "–"),
            f"trained with {trained.replace('complete', 'nothing missing')}",
            *(f"{k}={run.row[k]}" for k in shown if k in run.row),
        ]
        label = curves.setdefault(heading, {}).setdefault(", ".join(words), {})
        for rate, score in points.items():
            label.setdefault(rate, []).append(score)
    return curves


def _points(run: Run, metric: str | None) -> dict[float, float]:
    """Test rate -> score, of a run's clean evaluations."""
    points: dict[float, float] = {}
    for path in sorted(run.path.parent.glob("evaluations/test-best-*/results.json")):
        results = read_results(path)
        parts, name = results["protocol"], metric or results["primary"]["metric"]
        protocol, noise = (parts[part]["test"]["protocol"] for part in ("missing", "noise"))
        score, rate = results["aggregates"]["available"].get(name), protocol.get("rate")
        known = isinstance(rate, int | float) and score is not None
        if protocol["name"] == "mcar" and noise["name"] == "clean" and known:
            points[float(rate)] = score
    return points


def curve_tables(curves: Curves) -> list[Table]:
    """A table for every dataset: a row for every training, a column for every test rate."""
    tables = []
    for heading, labels in sorted(curves.items()):
        percent = metric_named(heading.rpartition(" · ")[2]).percent
        rates = sorted({rate for points in labels.values() for rate in points})
        body = [
            [Cell(label), *(cell(points.get(rate, []), percent) for rate in rates)]
            for label, points in sorted(labels.items())
        ]
        unit = " (%)" if percent else ""
        header = ["test modalities missing", *(f"{rate:g}" for rate in rates)]
        tables.append(Table(f"{heading}{unit} · of what is available", header, body))
    return tables


def plot_curves(curves: Curves, path: Path) -> None:
    """Draw them, one plot for every dataset and metric.

    Raises:
        UserError: there are none; the file cannot be written.
    """
    from matplotlib.figure import Figure

    if not curves:
        raise UserError(
            "there are no curves: no run was evaluated at two rates of missing modalities; run with -m sweep=curves, or "
            "with test_rates=[0.0,0.3,0.6], which also goes for complete runs"
        )
    figure = Figure(figsize=(7, 4 * len(curves)), layout="constrained")
    for axes, (heading, labels) in zip(
        figure.subplots(len(curves), squeeze=False)[:, 0], curves.items(), strict=True
    ):
        for label, points in sorted(labels.items()):
            rates: list[Any] = sorted(points)
            means = [fmean(points[rate]) for rate in rates]
            spreads = [stdev(points[rate]) if len(points[rate]) > 1 else 0.0 for rate in rates]
            axes.errorbar(rates, means, spreads, marker="o", capsize=2, label=label)
        axes.set_xlabel("share of the test's modalities that is missing")
        axes.set_ylabel(heading.rpartition(" · ")[2])
        axes.set_title(heading, fontsize=10)
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, path, 110)
    except (OSError, ValueError) as error:
        raise UserError(f"--curves {path} cannot be written: {error}") from error
