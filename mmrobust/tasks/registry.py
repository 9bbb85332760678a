"""The tasks by name."""

from __future__ import annotations

from mmrobust.data.spec import DataSpec
from mmrobust.tasks.base import Task
from mmrobust.tasks.classification import Classification
from mmrobust.tasks.multilabel import Multilabel
from mmrobust.tasks.regression import Regression
from mmrobust.tasks.segmentation import Segmentation

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "segmentation": Segmentation,
    "regression": Regression,
    "multilabel": Multilabel,
}


def build_task(spec: DataSpec) -> Task:
    """The task of a dataset."""
    return TASKS[spec.task](spec)
