"""What a model says of one sample, and how it is written into a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrobust.data.spec import DataSpec
from mmrobust.data.targets import BETWEEN_LABELS
from mmrobust.methods.base import Method, Output

# What `Output.extras` may hold of how much each modality counts, (B, M) or (B, M, ...); the first of them is shown.
WEIGHTS = ("weights", "confidence")


@dataclass(frozen=True)
class Prediction:
    """What a model says of one sample.

    Args:
        id: its name.
        available: the modalities that it was predicted from.
        prediction: the name of a class; in a regression a number, or a dict of them by name; of several labels a tuple
            of those that are there; in segmentation the classes (H, W) uint8, as large as the image.
        probabilities: of every class or label by its name; in segmentation (C, h, w) float32, as large as what the
            network sees; None in a regression.
        uncertainty: the method's own, the larger the less sure; None if it has none.
        weights: how much each available modality counts, in the method's own measure; None if it has none.
    """

    id: str
    available: tuple[str, ...]
    prediction: Any
    probabilities: Any
    uncertainty: float | None
    weights: dict[str, float] | None


def class_names(spec: DataSpec) -> tuple[str, ...]:
    """Of the classes, labels or numbers; where the dataset has no names, their numbers."""
    return tuple(spec.classes) or tuple(map(str, range(spec.num_classes)))


def predictions_of(
    method: Method,
    output: Output,
    sizes: Sequence[tuple[int, int] | None],
    available: Tensor,
    ids: Sequence[str],
) -> list[Prediction]:
    """What an output says of each of B samples.

    Args:
        method: that gave it, in eval mode.
        output: of the batch.
        sizes: (height, width) of every sample's prediction, of maps alone.
        available: (B, M) bool.
        ids: of the samples.
    """
    task, spec = method.task, method.spec
    logits = output.logits.float()
    probabilities = task.probabilities(logits)
    weights, uncertainty = weights_of(output), method.uncertainty(output)
    found = []
    for i, (name, size) in enumerate(zip(ids, sizes, strict=True)):
        target = torch.zeros(1, *(size or ()), dtype=torch.int64, device=logits.device)
        raw = task.predict(logits[None, i : i + 1], target, None)[0, 0].cpu().numpy()
        answer, odds = NAMED[spec.task](
            raw, None if probabilities is None else probabilities[i].cpu().numpy(), class_names(spec)
        )
        there = [m for m, has in zip(method.modalities, available[i].tolist(), strict=True) if has]
        found.append(
            Prediction(
                id=name,
                available=tuple(there),
                prediction=answer,
                probabilities=odds,
                uncertainty=None if uncertainty is None else float(uncertainty[i]),
                weights=None
                if weights is None
                else {m: float(weights[i, method.modalities.index(m)]) for m in there},
            )
        )
    return found


def weights_of(output: Output) -> Tensor | None:
    """How much each modality counts, (B, M), the mean over places; None if the method does not say."""
    found = next((output.extras[name] for name in WEIGHTS if name in output.extras), None)
    return found.flatten(2).mean(2) if isinstance(found, Tensor) and found.dim() > 2 else found


def named_class(raw: np.ndarray, odds: np.ndarray | None, names: Sequence[str]) -> tuple[Any, Any]:
    return names[int(raw)], _by_name(odds, names)


def named_labels(raw: np.ndarray, odds: np.ndarray | None, names: Sequence[str]) -> tuple[Any, Any]:
    return tuple(name for name, there in zip(names, raw.tolist(), strict=True) if there), _by_name(
        odds, names
    )


def named_numbers(raw: np.ndarray, odds: np.ndarray | None, names: Sequence[str]) -> tuple[Any, Any]:
    values = [float(x) for x in raw]
    return (values[0] if len(values) == 1 else dict(zip(names, values, strict=True))), None


def map_of_classes(raw: np.ndarray, odds: np.ndarray | None, names: Sequence[str]) -> tuple[Any, Any]:
    return raw.astype(np.uint8 if len(names) <= 256 else np.int32), odds


def _by_name(odds: np.ndarray | None, names: Sequence[str]) -> dict[str, float] | None:
    return None if odds is None else dict(zip(names, map(float, odds), strict=True))


NAMED: dict[str, Callable[[np.ndarray, np.ndarray | None, Sequence[str]], tuple[Any, Any]]] = {
    "classification": named_class,
    "multilabel": named_labels,
    "regression": named_numbers,
    "segmentation": map_of_classes,
}


def columns(method: Method) -> list[str]:
    """Of a table of predictions, between `available` and `error`."""
    names = class_names(method.spec)
    by_class = [] if method.task.dense else [f"p_{name}" for name in names]
    if method.spec.task == "regression":
        by_class = list(names) if len(names) > 1 else []
    return ["prediction", *by_class, "uncertainty", *(f"weight_{m}" for m in method.modalities)]


def cells(prediction: Prediction, mask: str | None = None) -> dict[str, str]:
    """Of one row of that table; what a method does not say stays empty.

    Args:
        mask: the file that holds a map of classes.
    """
    answer = prediction.prediction
    if mask is not None:
        row = {"prediction": mask}
    elif isinstance(answer, Mapping):
        row = {"prediction": " ".join(map(number, answer.values()))}
        row |= {name: number(x) for name, x in answer.items()}
    elif isinstance(answer, tuple):
        row = {"prediction": BETWEEN_LABELS.join(answer)}
    else:
        row = {"prediction": number(answer) if isinstance(answer, float) else str(answer)}
    if isinstance(prediction.probabilities, Mapping):
        row |= {f"p_{name}": number(p) for name, p in prediction.probabilities.items()}
    if prediction.uncertainty is not None:
        row["uncertainty"] = number(prediction.uncertainty)
    row |= {f"weight_{m}": number(w) for m, w in (prediction.weights or {}).items()}
    return row


def number(value: float) -> str:
    """As many digits as a float32 has."""
    return f"{value:.9g}"
