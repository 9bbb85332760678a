"""Every modality combination in one pass: encode once, fuse the stacked combinations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.combinations import all_combinations, combination_code, combination_masks, combination_name
from mmrobust.evaluation.families import THRESHOLD, measure_families
from mmrobust.evaluation.metrics import (
    calibration_counts,
    classification_metrics,
    confusion_counts,
    segmentation_metrics,
)
from mmrobust.evaluation.results import direction
from mmrobust.tasks import Classification, Task

STACK_BYTES = 256 * 2**20  # of features and logits fused at a time

Metrics = dict[str, float | None]


class Fuses(Protocol):
    """What evaluation needs of a method; see `methods.base.Method`."""

    task: Task

    def encode(self, batch: Batch) -> Mapping[str, Any]: ...

    def fuse(self, features: Mapping[str, Any], available: Tensor) -> Any: ...


@dataclass
class Results:
    """What one pass over a split gives.

    `combinations` maps every combination's name to {"n", "metrics"}, or to None if the method does not serve
    it. `aggregates` has `average` (unweighted mean over the served combinations), `worst` (by the primary
    metric), `full`, and `available` (each sample predicted from what it truly has).
    """

    primary: str
    combinations: dict[str, dict[str, Any] | None]
    aggregates: dict[str, Metrics]
    confusion: dict[str, Tensor]  # combination -> (C, C) int64 on the CPU, rows true
    predictions: dict[str, np.ndarray] | None = None
    # Of each family of further metrics, for all combinations and, last, as available; nan where there is none:
    thresholds: dict[str, np.ndarray] = field(default_factory=dict)  # those used
    equal_errors: dict[str, np.ndarray] = field(default_factory=dict)  # those this split would fix

    def flat(self, prefix: str) -> dict[str, float]:
        """`prefix/<combination>/<metric>` and `prefix/<aggregate>/<metric>`, for loggers."""
        rows = {name: row["metrics"] for name, row in self.combinations.items() if row} | self.aggregates
        return {
            f"{prefix}/{name}/{metric}": value
            for name, metrics in rows.items()
            for metric, value in metrics.items()
            if value is not None
        }


def stacked(method: Fuses, batch: Batch, masks: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Logits of every combination, from one encoding of the batch.

    Args:
        method: in eval mode, so that its `fuse` is row-wise.
        batch: B samples.
        masks: (K, M) bool, the combinations. A sample that has none of a combination's modalities is
            predicted from all that it has; nobody may count that row.

    Yields:
        (which combinations, their logits (k, B, ...)), in chunks that bound the memory.
    """
    features = method.encode(batch)
    size = 0

    def add(x: Tensor) -> Tensor:
        nonlocal size
        size += x.numel() * x.element_size()
        return x

    apply_to_collection(features, Tensor, add)
    places = max(math.prod(batch.target.shape[1:]), math.prod(method.task.size))
    size += 4 * len(batch) * method.task.num_classes * places
    step = max(1, STACK_BYTES // max(size, 1))
    for start in range(0, len(masks), step):
        chunk = masks[start : start + step]
        available = chunk[:, None] & batch.available
        available = torch.where(available.any(2, keepdim=True), available, batch.available)
        count = len(chunk)
        repeated = apply_to_collection(
            features,
            Tensor,
            lambda x: x.expand(count, *x.shape).flatten(0, 1) if count > 1 else x,  # noqa: B023
        )
        logits = method.fuse(repeated, available.flatten(0, 1)).logits
        yield slice(start, start + count), logits.unflatten(0, (count, len(batch)))


class CombinationScores:
    """Adds up the counts of every served combination over a pass, on the device."""

    def __init__(
        self,
        task: Task,
        modalities: Sequence[str],
        served: Sequence[Sequence[str]],
        *,
        keep_predictions: bool = False,
    ) -> None:
        self.task = task
        self.modalities = tuple(modalities)
        self.names = [combination_name(c) for c in all_combinations(modalities)]
        self.served = [combination_name(c) for c in served]
        self.masks = combination_masks(served, modalities)
        self.keep_predictions = keep_predictions or bool(task.metrics)
        self.reset()

    def reset(self) -> None:
        k, c = len(self.served) + 1, self.task.num_classes  # the last row: as available
        self.counts = {
            "confusion": torch.zeros(k, c, c, dtype=torch.int64),
            "samples": torch.zeros(k, dtype=torch.int64),
        }
        if isinstance(self.task, Classification):
            self.counts["calibration"] = calibration_counts(
                torch.zeros(k, 0, c), torch.zeros(k, 0), torch.zeros(k, 0, dtype=torch.bool)
            )
        self.kept: list[dict[str, Tensor]] = []

    def update(self, method: Fuses, batch: Batch) -> None:
        device = batch.available.device
        if self.masks.device != device or self.counts["samples"].device != device:
            self.masks = self.masks.to(device)
            self.counts = {name: count.to(device) for name, count in self.counts.items()}
        kept = {"index": batch.index, "available": batch.available}
        parts = []
        for chunk, logits in stacked(method, batch, self.masks):
            masks = self.masks[chunk]
            has = (batch.available | ~masks[:, None]).all(2)  # (k, B): the sample has the whole combination
            exact = combination_code(masks)[:, None] == combination_code(batch.available)
            predicted = self.task.predict(logits, batch.target, batch.label_size)
            self._count(chunk, logits, predicted, batch.target, has, exact)
            if self.keep_predictions:
                parts.append(self._prediction(logits, predicted, batch.target))
        if self.keep_predictions:
            if isinstance(self.task, Classification):
                kept |= {"target": batch.target, "logits": torch.cat(parts).transpose(0, 1)}
            else:
                kept |= {"confusion": torch.cat(parts).transpose(0, 1)}
            self.kept.append({name: value.cpu() for name, value in kept.items()})

    def _count(
        self, chunk: slice, logits: Tensor, predicted: Tensor, target: Tensor, has: Tensor, exact: Tensor
    ) -> None:
        target = target.expand_as(predicted)
        valid = target != self.task.ignore_index
        shape = (*has.shape, *[1] * (target.dim() - 2))
        target = torch.where(valid, target, 0)
        for rows, counted in ((chunk, has), (slice(-1, None), exact)):
            confusion = confusion_counts(
                predicted, target, counted.reshape(shape) & valid, self.task.num_classes
            )
            counts = {"confusion": confusion, "samples": counted.sum(1)}
            if "calibration" in self.counts:
                counts["calibration"] = calibration_counts(logits, target, counted & valid)
            for name, count in counts.items():
                self.counts[name][rows] += count if counted is has else count.sum(0, keepdim=True)

    def _prediction(self, logits: Tensor, predicted: Tensor, target: Tensor) -> Tensor:
        """What `predictions.npz` keeps: logits (k, B, C), or each image's confusion matrix (k, B, C, C)."""
        if isinstance(self.task, Classification):
            return logits.float()
        k, b = predicted.shape[:2]
        predicted, target = predicted.flatten(0, 1), target.expand(k, *target.shape).flatten(0, 1)
        valid = target != self.task.ignore_index
        counts = confusion_counts(predicted, torch.where(valid, target, 0), valid, self.task.num_classes)
        return counts.unflatten(0, (k, b)).int()

    def finish(self, thresholds: Mapping[str, np.ndarray] | None = None) -> Results:
        """Results over all ranks; starts afresh. `thresholds`: of each family, see `Results`."""
        predictions = self._gathered() if self.keep_predictions else None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for count in self.counts.values():
                torch.distributed.all_reduce(count)
        counts = {name: count.cpu() for name, count in self.counts.items()}
        self.reset()
        return self._results(counts, predictions, thresholds or {})

    def _results(
        self,
        counts: Mapping[str, Tensor],
        predictions: dict[str, np.ndarray] | None,
        thresholds: Mapping[str, np.ndarray],
    ) -> Results:
        """With the dataset's further metrics, which need every sample's logits."""
        more, fixed = None, dict[str, np.ndarray]()
        if self.task.metrics and predictions:
            has, exact = availability(predictions["available"], self.masks.cpu())
            rows = [*(self.names.index(name) for name in self.served), len(self.names)]
            given = {name: values[rows] for name, values in thresholds.items()}
            more, found = measure_families(self.task.metrics, predictions, has.numpy(), exact.numpy(), given)
            for name, values in found.items():
                fixed[name] = np.full(len(self.names) + 1, np.nan)
                fixed[name][rows] = values
            predictions |= {THRESHOLD + name: values for name, values in thresholds.items()}
        results = summarise(counts, self.task.primary, self.names, self.served, more)
        results.predictions, results.thresholds, results.equal_errors = predictions, dict(thresholds), fixed
        return results

    def _gathered(self) -> dict[str, np.ndarray]:
        mine = {
            name: torch.cat([kept[name] for kept in self.kept]).numpy() for name in (self.kept or [{}])[0]
        }
        parts: list[Any] = [mine]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, mine)
        parts = [part for part in parts if part]
        order = np.argsort(np.concatenate([part["index"] for part in parts]))
        arrays = {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
        return arrays | {"combinations": np.array(self.served), "modalities": np.array(self.modalities)}


def availability(available: np.ndarray, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Whether N samples, `available` (N, M), have the whole of each combination (K, M), and nothing else: (K, N)."""
    present = torch.from_numpy(available)
    has = (present | ~masks[:, None]).all(2)
    return has, combination_code(masks)[:, None] == combination_code(present)


def summarise(
    counts: Mapping[str, Tensor],
    primary: str,
    names: Sequence[str],
    served: Sequence[str],
    more: Sequence[Metrics] | None = None,
) -> Results:
    """Counts over all samples to results.

    Args:
        counts: `confusion` (K+1, C, C), `samples` (K+1,), and for classification `calibration`
            (K+1, BINS, 3); the last row is "as available".
        primary: the task's primary metric.
        names: all combinations in order.
        served: the K combinations that were predicted.
        more: further metrics of the same K + 1 rows.
    """
    if "calibration" in counts:
        metrics = classification_metrics(counts["confusion"], counts["calibration"])
    else:
        metrics = segmentation_metrics(counts["confusion"])
    table = {
        name: [None if math.isnan(x) else x for x in values.tolist()] for name, values in metrics.items()
    }
    rows = [{name: values[i] for name, values in table.items()} for i in range(len(served) + 1)]
    rows = [row | further for row, further in zip(rows, more, strict=True)] if more else rows
    samples = counts["samples"].tolist()
    combinations: dict[str, dict[str, Any] | None] = dict.fromkeys(names)
    for i, name in enumerate(served):
        combinations[name] = {"n": samples[i], "metrics": rows[i]}
    measured = [row for row in rows[:-1] if row[primary] is not None]
    empty: Metrics = dict.fromkeys(rows[0])
    worst = max if direction(primary) == "min" else min
    full = combinations[names[-1]]
    aggregates: dict[str, Metrics] = {
        "average": {m: _mean([row[m] for row in measured]) for m in empty},
        "worst": worst(measured, key=lambda row: row[primary] or 0.0) if measured else empty,
        "full": full["metrics"] if full else empty,
        "available": rows[-1],
    }
    confusion = {name: counts["confusion"][i] for i, name in enumerate(served)}
    return Results(primary, combinations, aggregates, confusion)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def from_predictions(predictions: Mapping[str, np.ndarray], task: Task) -> Results:
    """Recompute all results from the arrays of `predictions.npz`, with NumPy's and our own counting alone."""
    modalities = [str(m) for m in predictions["modalities"]]
    served = [tuple(str(name).split("+")) for name in predictions["combinations"]]
    thresholds = {k.removeprefix(THRESHOLD): x for k, x in predictions.items() if k.startswith(THRESHOLD)}
    scores = CombinationScores(task, modalities, served)
    has, exact = availability(predictions["available"], scores.masks)
    if isinstance(task, Classification):
        logits = torch.from_numpy(predictions["logits"]).transpose(0, 1)
        target = torch.from_numpy(predictions["target"])
        predicted = task.predict(logits, target, None)
        scores._count(slice(0, len(served)), logits, predicted, target, has, exact)
    else:
        confusion = torch.from_numpy(predictions["confusion"]).long().transpose(0, 1)  # (K, N, C, C)
        scores.counts["confusion"][:-1] = (confusion * has[..., None, None]).sum(1)
        scores.counts["confusion"][-1] = (confusion * exact[..., None, None]).sum((0, 1))
        scores.counts["samples"][:-1] = has.sum(1)
        scores.counts["samples"][-1] = exact.sum()
    return scores._results(scores.counts, dict(predictions), thresholds)
