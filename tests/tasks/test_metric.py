"""The one list of metrics: every task's are in it, with a direction."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mmrobust.tasks.families import FAMILIES, RANKING
from mmrobust.tasks.metric import METRICS, PRIMARY, direction, metric_named, primary_metric
from mmrobust.tasks.registry import TASKS


def test_every_metric_of_every_task_is_in_the_list() -> None:
    names = {name for task in TASKS.values() for name in task.metrics}
    names |= {name for family in (*FAMILIES.values(), RANKING) for name in family.metrics}
    assert names == set(METRICS)
    assert set(PRIMARY) == set(TASKS)
    assert all(PRIMARY[name] in task.metrics for name, task in TASKS.items())


def test_an_added_metric_says_what_it_is_in_the_result() -> None:
    results = {"metrics": {"nll": {"direction": "min", "percent": False, "label": "NLL"}}}
    assert direction("nll", results) == "min"
    assert metric_named("nll", results).label == "NLL"
    assert metric_named("miou", results) == METRICS["miou"]
    assert metric_named("unheard_of").direction == "max"


@pytest.mark.parametrize(
    ("data", "metric"),
    [
        ({}, "accuracy"),
        ({"task": "segmentation"}, "miou"),
        ({"task": "scene"}, "accuracy"),  # a dataset's own word for a classification
        ({"primary": "acer"}, "acer"),
        ({"target": "mask"}, "miou"),
        ({"target": None, "task": None}, "accuracy"),
    ],
)
def test_the_primary_metric_is_known_before_the_data_is_read(data: dict[str, str], metric: str) -> None:
    assert primary_metric(data) == metric


def test_no_torch() -> None:
    code = "import sys, mmrobust.tasks.metric; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
