"""The panel of a run: a few samples with their modalities, the truth, and every combination's prediction."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmrobust.combinations import combination_masks, combination_name
from mmrobust.data.base import DataModule
from mmrobust.data.loading import Collate
from mmrobust.data.spec import DataSpec
from mmrobust.data.split import Key
from mmrobust.evaluation.combinations import stacked
from mmrobust.reporting.cells import VOID_GREY, Cell, class_name, draw_answer, draw_input, palette
from mmrobust.reporting.figures import save_figure
from mmrobust.tasks.metric import metric_named
from mmrobust.tasks.registry import build_task

if TYPE_CHECKING:
    from mmrobust.batch import Batch
    from mmrobust.methods.base import Method

log = logging.getLogger("mmrobust")

SAMPLES = 4
# Of more combinations, the panel shows the single modalities, the worst and the full one.
MOST_COMBINATIONS = 8
CELL, BETWEEN = 1.25, 0.06  # inches: a cell's width, and the gaps
DPI = 120


def save_panel(
    method: Method, data: DataModule, results: Mapping[str, Any], path: Path, title: str, split: str = "test"
) -> bool:
    """Draw the panel of a run. A picture is no reason to lose a run: if drawing fails, the log has a warning.

    Args:
        method: trained.
        data: set up.
        results: what `results.json` holds.
        path: of the PNG.
        title: above the panel.
        split: whose samples are shown, with what the noise and missing protocols did to them.

    Returns:
        Whether there is a picture.
    """
    try:
        batch = chosen_samples(data, split).to(method.device)
        shown = chosen_combinations(method.combinations(), results)
        predictions = predict(method, batch, shown)
        draw(batch.to("cpu"), data.spec, predictions, scores(results), path, title)
    except Exception as error:
        log.warning("no %s was drawn: %s: %s", path.name, type(error).__name__, error)
        return False
    return True


def chosen_samples(data: DataModule, split: str) -> Batch:
    """Choose a few samples of a split, evenly spaced among those with the fewest absent modalities."""
    masks = data.masks[split]
    best = np.flatnonzero(masks.sum(1) == masks.sum(1).max())
    count = min(SAMPLES, len(best))
    index = best[((np.arange(count) + 0.5) * len(best) / count).astype(int)]
    keys = [Key(0, int(i)) for i in index]
    return Collate(data.splits[split], data.spec, masks)([(key, data.splits[split][key]) for key in keys])


def chosen_combinations(
    served: Sequence[tuple[str, ...]], results: Mapping[str, Any]
) -> list[tuple[str, ...]]:
    """Choose the served combinations that get a column: all, or the single ones, the worst and the largest."""
    if len(served) <= MOST_COMBINATIONS:
        return list(served)
    score = scores(results)
    measured = [c for c in served if combination_name(c) in score] or served
    find = max if results["primary"].get("direction") == "min" else min
    worst = find(measured, key=lambda c: score.get(combination_name(c), (1.0, ""))[0])
    return [c for c in served if len(c) == 1 or c in (worst, served[-1])]


def scores(results: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """Combination -> its primary metric, as a number and as text; combinations without a value are left out."""
    metric = results["primary"]["metric"]
    label = metric_named(metric, results).label
    values = {name: row["metrics"][metric] for name, row in results["combinations"].items() if row}
    return {name: (value, f"{label} {value:.3f}") for name, value in values.items() if value is not None}


def predict(
    method: Method, batch: Batch, combinations: Sequence[tuple[str, ...]]
) -> dict[str, list[tuple[np.ndarray, np.ndarray] | None]]:
    """Combination -> predicted classes, () or (H, W), and their probabilities for every sample; None for a sample that
    lacks a modality of the combination."""
    masks = combination_masks(combinations, method.modalities).to(batch.available.device)
    was_training, predicted, probability = method.training, [], []
    with torch.inference_mode():
        for _, logits in stacked(method.eval(), batch, masks):
            predicted.append(method.task.predict(logits, batch.target, batch.label_size).cpu())
            sure = method.task.certainty(logits)
            probability.append(torch.full(logits.shape[:2], torch.nan) if sure is None else sure.cpu())
    method.train(was_training)
    answers = zip(torch.cat(predicted).numpy(), torch.cat(probability).numpy(), strict=True)
    has = (batch.available | ~masks[:, None]).all(2).tolist()
    return {
        combination_name(c): [
            (label, sure) if complete else None
            for label, sure, complete in zip(labels, certainty, rows, strict=True)
        ]
        for c, (labels, certainty), rows in zip(combinations, answers, has, strict=True)
    }


def draw(
    batch: Batch,
    spec: DataSpec,
    predictions: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray] | None]],
    scores: Mapping[str, tuple[float, str]],
    path: Path,
    title: str,
) -> None:
    """Draw samples as rows and modalities, truth and combinations as columns. All lengths are inches."""
    from matplotlib.figure import Figure

    m, columns, tall = len(spec.modalities), [*spec.modalities, "truth", *predictions], CELL * _aspect(spec)
    heads = [*columns[: m + 1], *(_head(name, spec, scores) for name in predictions)]
    above = 0.4 + 0.12 * max(1 + head.count("\n") for head in heads)
    legend = _legend(batch, spec, predictions) if build_task(spec).dense else []
    width = BETWEEN + len(columns) * (CELL + BETWEEN) + 2 * BETWEEN
    lines = -(-len(legend) // max(int(width / 0.9), 1))
    below = BETWEEN + 0.19 * lines
    height = above + len(batch) * (tall + BETWEEN) + below
    figure = Figure(figsize=(width, height))
    # All cells share one axes object, because creating one for each cell would take most of the time.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.text(width / 2, height - 0.06, title, ha="center", va="top", fontsize=10)
    for column, head in enumerate(heads):
        # A wider gap separates the inputs from the truth and the predictions.
        left = BETWEEN + column * (CELL + BETWEEN) + 2 * BETWEEN * (column >= m)
        top = height - above
        axes.text(left + CELL / 2, top + 0.05, head, ha="center", va="bottom", fontsize=7, linespacing=1.1)
        for row in range(len(batch)):
            cell = Cell(axes, left, top - tall, CELL, tall)
            if column < m:
                x = batch.inputs[head][row].numpy() if batch.available[row, column] else None
                draw_input(cell, x, spec.modalities[head])
            elif column == m:
                draw_answer(cell, _target(batch, row), None, _target(batch, row), spec)
            elif (prediction := predictions[columns[column]][row]) is None:
                cell.write("–", "#888888")
            else:
                draw_answer(cell, *prediction, _target(batch, row), spec)
            cell.frame()
            top -= tall + BETWEEN
    if legend:
        from matplotlib.patches import Patch

        patches = [Patch(facecolor=colour, label=name) for colour, name in legend]
        keys: dict[str, Any] = {"frameon": False, "handlelength": 1, "handleheight": 1, "columnspacing": 1.2}
        keys |= {"ncol": -(-len(legend) // lines), "fontsize": 7, "borderaxespad": 0.1}
        figure.legend(handles=patches, loc="lower center", **keys)
    axes.set(xlim=(0, width), ylim=(0, height), aspect="auto")
    axes.set_axis_off()
    save_figure(figure, path, DPI)


def _head(name: str, spec: DataSpec, scores: Mapping[str, tuple[float, str]]) -> str:
    """The heading of a combination's column."""
    everything = len(spec.modalities) > 3 and name == combination_name(tuple(spec.modalities))
    lines = [f"all {len(spec.modalities)}" if everything else name.replace("+", "\n+ ")]
    return "\n".join([*lines, *([scores[name][1]] if name in scores else [])])


def _legend(batch: Batch, spec: DataSpec, predictions: Mapping[str, Any]) -> list[tuple[Any, str]]:
    """Colours and names of the visible classes and of void."""
    seen = {int(label) for label in batch.target.unique()}
    for column in predictions.values():
        seen |= {int(label) for answer in column if answer is not None for label in np.unique(answer[0])}
    colours = palette(spec.num_classes)
    known = [(colours[k], class_name(spec, k)) for k in sorted(seen) if 0 <= k < spec.num_classes]
    return known + ([(VOID_GREY, "void")] if spec.ignore_index in seen else [])


def _target(batch: Batch, row: int) -> np.ndarray:
    """A sample's target without the padding that collation added."""
    target = batch.target[row]
    if batch.label_size is not None:
        height, width = batch.label_size[row].tolist()
        target = target[:height, :width]
    return target.numpy()


def _aspect(spec: DataSpec) -> float:
    """Height over width of the cells, taken from the first modality that is a picture."""
    shapes = [m.shape[-2:] for m in spec.modalities.values() if m.traits.picture]
    height, width = shapes[0] if shapes else (1, 1)
    return min(max(height / width, 0.5), 1.6)
