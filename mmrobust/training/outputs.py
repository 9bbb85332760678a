"""The files that a test or an evaluation leaves in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrobust.data.base import DataModule
from mmrobust.evaluation.results import write_predictions, write_results
from mmrobust.methods.base import Method
from mmrobust.reporting.panel import save_panel
from mmrobust.reporting.run_table import plot_combinations


def write_outputs(
    folder: Path,
    method: Method,
    data: DataModule,
    results: Mapping[str, Any],
    *,
    split: str,
    title: str,
    panel_title: str,
) -> dict[str, Path]:
    """Write predictions and pictures and, last, the result, which makes the run complete.

    Args:
        folder: receives `predictions.npz`, `combinations.png`, `panel.png`, `results.json`.
        method: that was tested.
        data: set up.
        results: what `results.json` will hold.
        split: that was tested.
        title: above the picture of the combinations.
        panel_title: above the panel.

    Returns:
        Result and pictures, by the labels under which they are shown; without what could not be drawn.
    """
    if method.results.predictions is not None:
        write_predictions(folder, method.results.predictions)
    pictures = {"picture": folder / "combinations.png", "panel": folder / "panel.png"}
    plot_combinations(results, pictures["picture"], title)
    save_panel(method, data, results, pictures["panel"], panel_title, split)
    result = write_results(folder, results)
    return {"result": result} | {label: path for label, path in pictures.items() if path.is_file()}
