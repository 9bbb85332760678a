"""The one list of all metrics, with their direction and format. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mmrobust.data.table.csv_file import TARGETS

Direction = Literal["min", "max"]


@dataclass(frozen=True)
class Metric:
    """A metric's direction and format.

    Args:
        name: the name in `results.json`.
        direction: `max` if larger values are better, else `min`.
        percent: whether reports show the value, a share, as a percentage.
        label: the name in figures.
    """

    name: str
    direction: Direction
    percent: bool
    label: str

    def to_dict(self) -> dict[str, Any]:
        """The fields without the name, which is the key in `results.json`."""
        plain = asdict(self)
        return {key: value for key, value in plain.items() if key != "name"}


def _share(name: str, label: str, direction: Direction = "max") -> Metric:
    return Metric(name, direction, True, label)


def _number(name: str, label: str, direction: Direction) -> Metric:
    return Metric(name, direction, False, label)


METRICS = {
    metric.name: metric
    for metric in (
        _share("accuracy", "accuracy"),
        _share("macro_f1", "macro F1"),
        _share("ece", "ECE", "min"),
        _share("miou", "mIoU"),
        _share("pixel_accuracy", "pixel accuracy"),
        _share("mean_accuracy", "mean accuracy"),
        _share("acer", "ACER", "min"),
        _share("apcer", "APCER", "min"),
        _share("bpcer", "BPCER", "min"),
        _share("hter", "HTER", "min"),
        _share("eer", "EER", "min"),
        _share("tpr_at_fpr_1e-2", "TPR at FPR 1e-2"),
        _share("tpr_at_fpr_1e-3", "TPR at FPR 1e-3"),
        _share("tpr_at_fpr_1e-4", "TPR at FPR 1e-4"),
        _share("map", "mAP"),
        _number("mae", "MAE", "min"),
        _number("rmse", "RMSE", "min"),
        _number("pearson", "Pearson r", "max"),
        _number("ccc", "CCC", "max"),
    )
}

# The primary metric of every task.
PRIMARY = {
    "classification": "accuracy",
    "segmentation": "miou",
    "regression": "mae",
    "multilabel": "macro_f1",
}


def metric_named(name: str, results: Mapping[str, Any] | None = None) -> Metric:
    """Look up a metric.

    Args:
        name: a name in METRICS, or of a metric that the run's configuration added.
        results: the content of `results.json`; its `metrics` describe the added ones. An unknown name is treated as a
            number whose larger values are better.
    """
    added = (results or {}).get("metrics", {})
    if name in added:
        return Metric(name, **added[name])
    return METRICS.get(name, Metric(name, "max", False, name))


def direction(name: str, results: Mapping[str, Any] | None = None) -> Direction:
    """The direction of a metric, see `metric_named`."""
    return metric_named(name, results).direction


def primary_metric(data: Mapping[str, Any]) -> str:
    """The primary metric according to a configuration's `data`, before the dataset is loaded: its own or its task's."""
    task = data.get("task") or TARGETS.get(data.get("target") or "", "classification")
    return str(data.get("primary") or PRIMARY.get(task, "accuracy"))
