"""Missing-rate curves: what trained runs do when more and more of the test's modalities are missing. Imports no torch.

A point is a run's tested checkpoint on samples of which every modality is missing at random with that rate: each is
predicted from what is left of it (`aggregates.available`). A curve is the mean over seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mmrobust.errors import UserError
from mmrobust.evaluation.comparison import IN_PERCENT, Run, Tables
from mmrobust.evaluation.results import read_results

Curves = dict[str, dict[str, dict[float, list[float]]]]  # data and metric -> label -> test rate -> a score a run


def read_curves(runs: Iterable[Run], metric: str | None = None) -> Curves:
    """The evaluations of runs at several rates of missing modalities.

    Args:
        runs: as read for the report.
        metric: another metric than the primary one.
    """
    curves: Curves = {}
    for run in runs:
        points: dict[float, float] = {}
        for path in sorted(run.path.parent.glob("evaluations/test-best-*/results.json")):
            results = read_results(path)
            protocols = results["protocol"]
            protocol, name = protocols["missing"]["test"]["protocol"], metric or results["primary"]["metric"]
            score = results["aggregates"]["available"].get(name)
            clean = protocols["noise"]["test"]["protocol"]["name"] == "clean"
            if protocol["name"] == "mcar" and isinstance(protocol["rate"], int | float) and clean and score is not None:
                points[float(protocol["rate"])] = score
        if len(points) > 1:
            heading = f"{run.table['data']} · {run.table['split']} · {run.table['metric']}"
            labels = curves.setdefault(heading, {}).setdefault(_label(run.row), {})
            for rate, score in points.items():
                labels.setdefault(rate, []).append(score)
    return curves


def _label(row: Mapping[str, str]) -> str:
    masks = row["missing.train"].replace("complete", "nothing missing").replace("mcar rate=", "missing ")
    others = [f"{k}={row[k]}" for k in row if k not in NOT_IN_LABEL and not k.startswith(("missing", "noise"))]
    return ", ".join([row.get("method", "–"), f"trained with {masks}", *others])


NOT_IN_LABEL = ("method", "data", "train masks", "recipe", "trials", "fusion", "encoder", "experiment")


def curve_tables(curves: Curves) -> Tables:
    """A table for every dataset: a row for every training, a column for every test rate."""
    tables = []
    for heading, labels in sorted(curves.items()):
        percent = heading.endswith(IN_PERCENT)
        rates = sorted({rate for points in labels.values() for rate in points})
        body = [
            [label, *(_cell(points.get(rate, []), percent) for rate in rates)]
            for label, points in sorted(labels.items())
        ]
        unit = " (%)" if percent else ""
        header = ["test modalities missing", *(f"{rate:g}" for rate in rates)]
        tables.append((f"{heading}{unit} · of what is available", [header, *body]))
    return tables


def _cell(scores: Sequence[float], percent: bool) -> str:
    if not scores:
        return "–"
    values, digits = [score * (100 if percent else 1) for score in scores], 1 if percent else 3
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"


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
    for axes, (heading, labels) in zip(figure.subplots(len(curves), squeeze=False)[:, 0], curves.items(), strict=True):
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
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise UserError(f"--curves {path} cannot be written: {error}") from error
