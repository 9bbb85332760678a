"""Evaluation of every modality combination in one pass: encode once, then fuse the stacked combinations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed
import torchmetrics
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.combinations import all_combinations, combination_code, combination_masks, combination_name
from mmrobust.data.progress import Clock
from mmrobust.errors import DivergenceError
from mmrobust.evaluation.added_metrics import Added, AddedScores
from mmrobust.evaluation.results import MANY
from mmrobust.tasks.base import Counts, Task
from mmrobust.tasks.families import THRESHOLD, measure_families
from mmrobust.tasks.metric import Metric, direction

# Memory bound of the features and logits of the combinations that are fused at a time.
STACK_BYTES = 256 * 2**20

Metrics = dict[str, float | None]


class Fuses(Protocol):
    """The part of a method that evaluation uses; see `methods.base.Method`."""

    task: Task

    def encode(self, batch: Batch) -> Mapping[str, Any]: ...

    def fuse(self, features: Mapping[str, Any], available: Tensor) -> Any: ...


@dataclass
class Results:
    """The results of one pass over a split.

    Attributes:
        primary: name of the primary metric.
        combinations: every combination's name -> {"n", "metrics"}, or None if the method does not serve it. With many
            modalities the combinations may be a random sample.
        aggregates: `average` (unweighted mean over the served combinations), `worst` (by the primary metric), `full`,
            and `available` (each sample predicted from its own available modalities).
        confusion: confusion matrix of each served combination, (C, C) int64 on the CPU; rows are true classes.
        predictions: the arrays of `predictions.npz`, if they were kept.
        thresholds: thresholds that each metric family used: one per combination and, last, one for "as available";
            nan where there is none.
        equal_errors: thresholds of equal error on this split, in the same layout.
        added: metrics that the configuration added.
    """

    primary: str
    combinations: dict[str, dict[str, Any] | None]
    aggregates: dict[str, Metrics]
    confusion: dict[str, Tensor] = field(default_factory=dict)
    predictions: dict[str, np.ndarray] | None = None
    thresholds: dict[str, np.ndarray] = field(default_factory=dict)
    equal_errors: dict[str, np.ndarray] = field(default_factory=dict)
    added: dict[str, Metric] = field(default_factory=dict)

    def flat(self, prefix: str) -> dict[str, float]:
        """Map `prefix/<combination>/<metric>` and `prefix/<aggregate>/<metric>` to values, for loggers. Of more than
        MANY combinations, only the single modalities are included."""
        rows = {
            name: row["metrics"]
            for name, row in self.combinations.items()
            if row and (len(self.combinations) <= MANY or "+" not in name)
        } | self.aggregates
        return {
            f"{prefix}/{name}/{metric}": value
            for name, metrics in rows.items()
            for metric, value in metrics.items()
            if value is not None
        }


def stacked(method: Fuses, batch: Batch, masks: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Compute the logits of every combination from one encoding of the batch.

    Args:
        method: a method in eval mode, so that rows do not affect one another in `fuse`.
        batch: B samples.
        masks: (K, M) bool, the combinations. A sample that lacks all modalities of a combination is predicted from all
            of its available modalities; callers must not count that row.

    Yields:
        (slice of the combinations, their logits (k, B, ...)), in chunks that bound the memory.
    """
    features = method.encode(batch)
    size = 0

    def add(x: Tensor) -> Tensor:
        nonlocal size
        size += x.numel() * x.element_size()
        return x

    apply_to_collection(features, Tensor, add)
    places = max(math.prod(batch.target.shape[1:]), math.prod(method.task.size)) if method.task.dense else 1
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


class Counted(torchmetrics.Metric):
    """Sums a task's counts of K rows over batches and, through torchmetrics, over ranks."""

    full_state_update = False

    def __init__(self, zeros: Counts) -> None:
        super().__init__()
        self.names = tuple(zeros)
        for name, zero in zeros.items():
            self.add_state(name, zero, dist_reduce_fx="sum")

    def update(self, rows: slice, counts: Counts) -> None:
        """Add counts to the given rows."""
        for name, count in counts.items():
            getattr(self, name)[rows] += count

    def compute(self) -> Counts:
        """The counts over all ranks."""
        return {name: getattr(self, name) for name in self.names}


class CombinationScores:
    """Sums the counts of every served combination over a pass, on the device.

    Args:
        task: defines the counts and the metrics.
        modalities: the M modality names.
        served: the K combinations that the method can serve.
        names: names of the combinations that the results list; None: all.
        keep_predictions: whether to keep the arrays of `predictions.npz`.
        metrics: metrics that the configuration adds, see `added_metrics`.
    """

    def __init__(
        self,
        task: Task,
        modalities: Sequence[str],
        served: Sequence[Sequence[str]],
        *,
        names: Sequence[str] | None = None,
        keep_predictions: bool = False,
        metrics: Mapping[str, Added] | None = None,
    ) -> None:
        self.task = task
        self.modalities = tuple(modalities)
        self.all_names = [combination_name(c) for c in all_combinations(modalities)]
        self.names = self.all_names if names is None else list(names)
        self.served = [combination_name(c) for c in served]
        self.masks = combination_masks(served, modalities)
        self.keep_predictions = keep_predictions or bool(task.families)
        rows = len(self.served) + 1  # the last row is "as available"
        self.counts = Counted({"samples": torch.zeros(rows, dtype=torch.int64), **task.zeros(rows)})
        self.added = AddedScores(metrics, rows) if metrics else None
        self.kept: list[dict[str, np.ndarray]] = []
        # For every batch: its ids, and a mask (B,) of the samples with a NaN or infinite logit that counts.
        self.bad: list[tuple[list[str], Tensor]] = []
        self.clock = Clock()

    def reset(self) -> None:
        self.counts.reset()
        self.kept = []
        if self.added:
            self.added.reset()
        self.bad = []
        self.clock = Clock()

    def update(self, method: Fuses, batch: Batch) -> None:
        device = batch.available.device
        if self.masks.device != device or self.counts.device != device:
            self.masks, self.counts = self.masks.to(device), self.counts.to(device)
        parts = []
        bad = torch.zeros(len(batch), dtype=torch.bool, device=device)
        for chunk, logits in stacked(method, batch, self.masks):
            masks = self.masks[chunk]
            # (k, B): whether the sample has the whole combination; below, whether it has exactly this combination
            has = (batch.available | ~masks[:, None]).all(2)
            exact = combination_code(masks)[:, None] == combination_code(batch.available)
            predicted = self.task.predict(logits, batch.target, batch.label_size)
            for rows, counted in ((chunk, has), (slice(-1, None), exact)):
                self._count(rows, counted, self.task.count(logits, predicted, batch.target, counted))
            # The sum is NaN or infinite if one of the logits is.
            total = logits.flatten(2).sum(2, dtype=torch.float32)
            bad |= (~total.isfinite() & (has | exact)).any(0)
            if self.added:
                self._add(chunk, logits, batch.target, batch.label_size, has, exact)
            if len(self.masks) > MANY:
                self.clock.tell(
                    f"evaluating batch {len(self.bad) + 1}, combination {chunk.stop} of {len(self.masks)}"
                )
            if self.keep_predictions:
                parts.append(self.task.kept(logits, predicted, batch.target))
        self.bad.append((batch.ids, bad))
        if self.keep_predictions:
            kept = {"index": batch.index, "available": batch.available}
            kept |= {} if self.task.dense else {"target": batch.target}
            kept[self.task.kept_as] = torch.cat(parts).transpose(0, 1)
            arrays = {name: value.cpu().numpy() for name, value in kept.items()}
            self.kept.append(arrays | {"ids": np.array(batch.ids)})

    def _count(self, rows: slice, counted: Tensor, counts: Counts) -> None:
        """Add the counts of a chunk of combinations. For the last row, "as available", they are summed first."""
        counts = {"samples": counted.sum(1), **counts}
        if rows.start == -1:
            counts = {name: count.sum(0, keepdim=True) for name, count in counts.items()}
        self.counts.update(rows, counts)

    def _add(
        self,
        chunk: slice,
        logits: Tensor,
        target: Tensor,
        label_size: Tensor | None,
        has: Tensor,
        exact: Tensor,
    ) -> None:
        """Update the added metrics, which take the samples of one combination at a time."""
        assert self.added is not None
        for i, (y, complete, alone) in enumerate(zip(logits, has, exact, strict=True)):
            for row, rows in ((chunk.start + i, complete), (-1, alone)):
                sizes = None if label_size is None else label_size[rows]
                self.added.update(row, *self.task.pairs(y[rows], target[rows], sizes))

    def finish(self, thresholds: Mapping[str, np.ndarray] | None = None) -> Results:
        """Compute the results over all ranks and reset. `thresholds` holds those of each family, see `Results`.

        Raises:
            DivergenceError: logits are NaN or infinite; the message names the samples.
        """
        self._refuse_bad()
        predictions = self._gathered() if self.keep_predictions else None
        counts = {name: count.cpu() for name, count in self.counts.compute().items()}
        results = self._results(counts, predictions, thresholds or {})
        self.reset()
        return results

    def _results(
        self,
        counts: Counts,
        predictions: dict[str, np.ndarray] | None,
        thresholds: Mapping[str, np.ndarray],
    ) -> Results:
        """Results with the dataset's metric families, which need every sample's logits, and the added metrics."""
        samples = counts["samples"].tolist()
        more: list[Metrics] = [{} for _ in samples]
        fixed = dict[str, np.ndarray]()
        if self.task.families and predictions:
            has, exact = availability(predictions["available"], self.masks.cpu())
            places = {name: i for i, name in enumerate(self.all_names)}
            rows = [*(places[name] for name in self.served), len(places)]
            given = {name: values[rows] for name, values in thresholds.items()}
            more, found = measure_families(self.task.families, predictions, has.numpy(), exact.numpy(), given)
            for name, values in found.items():
                fixed[name] = np.full(len(places) + 1, np.nan)
                fixed[name][rows] = values
            predictions |= {THRESHOLD + name: values for name, values in thresholds.items()}
        if self.added:
            more = [row | values for row, values in zip(more, self.added.compute(samples), strict=True)]
        results = summarise(
            self.task.measure(counts), samples, self.task.primary, self.names, self.served, more
        )
        if "confusion" in counts:
            results.confusion = {name: counts["confusion"][i] for i, name in enumerate(self.served)}
        results.predictions, results.thresholds, results.equal_errors = predictions, dict(thresholds), fixed
        if self.added:
            results.added = {name: added.metric for name, added in self.added.metrics.items()}
        return results

    def _refuse_bad(self) -> None:
        """Raise for non-finite logits. Runs once per pass, because reading the masks synchronises with the device."""
        bad = torch.cat([bad for _, bad in self.bad]).tolist() if self.bad else []
        found = [
            name for name, is_bad in zip((n for ids, _ in self.bad for n in ids), bad, strict=True) if is_bad
        ]
        parts: list[Any] = [found]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, found)
        if names := [name for part in parts for name in part]:
            self.reset()
            raise DivergenceError(
                f"the network's logits are NaN or infinite for {len(names)} samples: {', '.join(names[:8])}"
                f"{', ...' if len(names) > 8 else ''}. Their inputs are finite, so its weights have diverged, or "
                "trainer.precision is too low: lower optimizer.lr, set trainer.gradient_clip_val, or take 32-true"
            )

    def _gathered(self) -> dict[str, np.ndarray]:
        mine = {name: np.concatenate([kept[name] for kept in self.kept]) for name in (self.kept or [{}])[0]}
        parts: list[Any] = [mine]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, mine)
        parts = [part for part in parts if part]
        order = np.argsort(np.concatenate([part["index"] for part in parts]))
        arrays = {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
        names = {"combinations": self.served, "modalities": self.modalities, "classes": self.task.classes}
        return arrays | {name: np.array(of, dtype=np.str_) for name, of in names.items()}


def availability(available: np.ndarray, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Two masks (K, N): whether the sample of `available` (N, M) has all modalities of the combination of `masks`
    (K, M), and whether it has exactly these."""
    present = torch.from_numpy(available)
    has = (present | ~masks[:, None]).all(2)
    return has, combination_code(masks)[:, None] == combination_code(present)


def summarise(
    values: Mapping[str, Tensor],
    samples: Sequence[int],
    primary: str,
    names: Sequence[str],
    served: Sequence[str],
    more: Sequence[Metrics],
) -> Results:
    """Arrange the metrics of a pass as results.

    Args:
        values: values (K + 1,) of each metric, nan where undefined; the last row is "as available".
        samples: number of samples of each row.
        primary: the task's primary metric.
        names: names of all combinations, in order.
        served: names of the K combinations that were predicted.
        more: further metrics of the same K + 1 rows.
    """
    table = {name: [None if math.isnan(x) else x for x in v.tolist()] for name, v in values.items()}
    rows = [{name: table[name][i] for name in table} | row for i, row in enumerate(more)]
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
    return Results(primary, combinations, aggregates)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def from_predictions(
    predictions: Mapping[str, np.ndarray], task: Task, metrics: Mapping[str, Added] | None = None
) -> Results:
    """Recompute all results from the arrays of `predictions.npz`, without the network.

    Args:
        predictions: the arrays.
        task: a task with the metrics of the original evaluation.
        metrics: the added metrics. Those of maps cannot be recomputed: of a map, only the confusion matrix is kept.
    """
    modalities = [str(m) for m in predictions["modalities"]]
    served = [tuple(str(name).split("+")) for name in predictions["combinations"]]
    thresholds = {k.removeprefix(THRESHOLD): x for k, x in predictions.items() if k.startswith(THRESHOLD)}
    scores = CombinationScores(task, modalities, served, metrics=None if task.dense else metrics)
    has, exact = availability(predictions["available"], scores.masks)
    kept = torch.from_numpy(predictions[task.kept_as]).transpose(0, 1)  # (K, N, ...)
    target = None if task.dense else torch.from_numpy(predictions["target"])
    everything = slice(0, len(served))
    for rows, counted in ((everything, has), (slice(-1, None), exact)):
        scores._count(rows, counted, task.count_kept(kept, target, counted))
    if scores.added and target is not None:
        scores._add(everything, kept, target, None, has, exact)
    return scores._results(scores.counts.compute(), dict(predictions), thresholds)
