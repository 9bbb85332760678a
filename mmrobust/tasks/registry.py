"""All tasks by name."""

from __future__ import annotations

from typing import Any

from mmrobust.data.spec import DataSpec
from mmrobust.errors import UserError
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
    """Build the task of a dataset."""
    return TASKS[spec.task](spec)


def require_task(method: Any, task: str) -> None:
    """Check that a method's class serves the task. Raises: UserError: it does not."""
    if task not in method.tasks:
        can, more = " and ".join(method.tasks), "method=dropout does all tasks"
        raise UserError(f"{method.__name__} does {can}, but the dataset's task is {task}; {more}")
