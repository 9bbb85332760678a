"""Write the files of a test or an evaluation: predictions, pictures, masks and the result."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmrobust.data.base import DataModule
from mmrobust.data.loading import Collate
from mmrobust.data.split import Key
from mmrobust.evaluation.results import write_predictions, write_results
from mmrobust.methods.base import Method
from mmrobust.reporting.masks import write_mask
from mmrobust.reporting.panel import save_panel
from mmrobust.reporting.run_table import plot_combinations

log = logging.getLogger("mmrobust")


def write_outputs(
    folder: Path,
    method: Method,
    data: DataModule,
    results: Mapping[str, Any],
    *,
    split: str,
    title: str,
    panel_title: str,
    keep_masks: bool,
) -> dict[str, Path]:
    """Write predictions and pictures and, last, the result, which makes the run complete.

    Args:
        folder: the folder for `predictions.npz`, `combinations.png`, `panel.png`, `results.json`.
        method: the tested method.
        data: the data, set up.
        results: the content of `results.json`.
        split: the name of the tested split.
        title: the title of the picture of the combinations.
        panel_title: the title of the panel.
        keep_masks: whether to write the predicted classes of every sample to `masks/`, for segmentation only. They are
            predicted from all available modalities.

    Returns:
        Label -> path of the result and of the pictures that could be drawn.
    """
    if method.results.predictions is not None:
        write_predictions(folder, method.results.predictions)
    if keep_masks:
        write_masks(folder / "masks", method, data, split)
    pictures = {"picture": folder / "combinations.png", "panel": folder / "panel.png"}
    plot_combinations(results, pictures["picture"], title)
    save_panel(method, data, results, pictures["panel"], panel_title, split)
    result = write_results(folder, results)
    return {"result": result} | {label: path for label, path in pictures.items() if path.is_file()}


def write_masks(folder: Path, method: Method, data: DataModule, split: str) -> None:
    """Predict the samples of a split again and write their classes as PNGs. Other tasks than segmentation only warn."""
    if not method.task.dense:
        log.warning("keep_masks=true has no effect: there are no masks in %s", data.spec.task)
        return
    samples, collate = data.splits[split], Collate(data.splits[split], data.spec, data.masks[split])
    was_training = method.training
    method.eval()
    for start in range(0, len(samples), data.batch_size):
        keys = [Key(0, i) for i in range(start, min(start + data.batch_size, len(samples)))]
        batch = collate([(key, samples[key]) for key in keys]).to(method.device)
        with torch.inference_mode():
            logits = method(batch).logits[None]
            predicted = method.task.predict(logits, batch.target, batch.label_size)[0].cpu().numpy()
        for i, (name, mask) in enumerate(zip(batch.ids, predicted, strict=True)):
            height, width = mask.shape if batch.label_size is None else batch.label_size[i].tolist()
            write_mask(folder, name, mask[:height, :width], data.spec.num_classes)
    method.train(was_training)
