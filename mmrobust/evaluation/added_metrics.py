"""Torchmetrics metrics that a configuration adds by `metrics.<name>={_target_: ...}`, for all combinations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
import torchmetrics
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mmrobust import ranks
from mmrobust.config.build import construct
from mmrobust.data.spec import DataSpec
from mmrobust.errors import UserError
from mmrobust.tasks.metric import METRICS, Metric

# Torchmetrics' names of the tasks, and its keys for the number of outputs.
TORCHMETRICS_TASK = {"classification": "multiclass", "segmentation": "multiclass", "multilabel": "multilabel"}
COUNTS = ("num_classes", "num_labels", "num_outputs")
OWN = ("direction", "percent", "label")  # keys that are not arguments of the constructor


@dataclass(frozen=True)
class Added:
    """An added metric: its description, and an empty torchmetrics object to copy."""

    metric: Metric
    empty: torchmetrics.Metric


def build_metrics(config: DictConfig, spec: DataSpec) -> dict[str, Added]:
    """Build the metrics of a configuration.

    Args:
        config: name -> `_target_`, the constructor's keys and those of OWN. If null, `task`, `num_classes`,
            `num_labels` and `num_outputs` follow the dataset, and `direction` follows torchmetrics.
        spec: the dataset's description.

    Raises:
        UserError: a metric cannot be built, its name is taken, or its direction is unknown.
    """
    return {str(name): _build(str(name), node, spec) for name, node in config.items()}


def _build(name: str, node: DictConfig, spec: DataSpec) -> Added:
    key = f"metrics.{name}"
    if name in METRICS:
        raise UserError(f"{key}: a metric of ours is called {name}; give yours another name")
    node = node.copy()
    OmegaConf.set_struct(node, False)
    own = {option: node.pop(option, None) for option in OWN}
    for option in COUNTS:
        if option in node and node[option] is None:
            node[option] = spec.num_classes
    if "task" in node and node.task is None:
        node.task = TORCHMETRICS_TASK.get(spec.task)
    try:
        empty = construct(node)
    except (ValueError, TypeError, ModuleNotFoundError) as error:
        raise UserError(f"{key}: {node._target_} cannot be built: {error}") from error
    good = own["direction"]
    if good is None and empty.higher_is_better is not None:
        good = "max" if empty.higher_is_better else "min"
    if good not in ("min", "max"):
        raise UserError(
            f"{key}.direction={own['direction']}: torchmetrics does not say which values of {type(empty).__name__} are "
            f"good; set {key}.direction=max or min"
        )
    return Added(Metric(name, good, bool(own["percent"]), own["label"] or name), empty)


class AddedScores:
    """The added metrics of K combinations and, in the last row, of every sample as available: one object per row.

    Each object receives the samples that count for its combination, batch by batch; torchmetrics reduces over ranks.
    """

    def __init__(self, metrics: Mapping[str, Added], rows: int) -> None:
        self.metrics = metrics
        self.scores = {name: [deepcopy(m.empty) for _ in range(rows)] for name, m in metrics.items()}

    def update(self, row: int, predicted: Tensor, target: Tensor) -> None:
        """Count samples of a combination, given the result of the task's `pairs`."""
        if not len(target):
            return
        for name, scores in self.scores.items():
            if scores[row].device != predicted.device:
                scores[row].to(predicted.device)
            try:
                scores[row].update(predicted, target)
            except (ValueError, RuntimeError, TypeError) as error:
                raise UserError(
                    f"metrics.{name} cannot read predictions {tuple(predicted.shape)} with targets "
                    f"{tuple(target.shape)}: {error}; see conf/metric/"
                ) from error

    def compute(self, samples: Sequence[int]) -> list[dict[str, float | None]]:
        """Compute every row's values over all ranks; None if no rank has a sample or the value is not finite.

        Args:
            samples: number of samples of every row, over all ranks.
        """
        if ranks.active():
            for scores in self.scores.values():
                _fill_empty(scores)
        rows: list[dict[str, float | None]] = []
        for row, count in enumerate(samples):
            values = {name: scores[row].compute() if count else None for name, scores in self.scores.items()}
            rows.append({name: _number(name, value) for name, value in values.items()})
        return rows

    def reset(self) -> None:
        for scores in self.scores.values():
            for score in scores:
                score.reset()


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, Tensor) or value.numel() != 1:
        shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UserError(
            f"metrics.{name} gives {shown}, where one number is expected; let it average, such as average=macro"
        )
    number = float(value)
    return number if math.isfinite(number) else None


def _fill_empty(scores: Sequence[torchmetrics.Metric]) -> None:
    """Give list states of a rank without samples an empty tensor with the other ranks' number of axes. Torchmetrics
    would let this rank gather nothing, or one axis, and the ranks would deadlock."""
    mine = [
        {
            name: [(tuple(x.shape[1:]), x.dtype) for x in value[:1]]
            for name, value in score.metric_state.items()
            if isinstance(value, list)
        }
        for score in scores
    ]
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    for row, score in enumerate(scores):
        for name, found in mine[row].items():
            shapes = [theirs[row][name][0] for theirs in everyone if theirs[row][name]]
            if not found and shapes:
                shape, dtype = shapes[0]
                setattr(score, name, [torch.zeros(0, *shape, dtype=dtype, device=score.device)])
                score._update_count += 1
