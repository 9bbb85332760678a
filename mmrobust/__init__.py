"""Robust multimodal learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mmrobust.predict.model import Model


def load(
    run: Path | str, *, checkpoint: str = "best", device: str | None = None, allow: Sequence[str] = ()
) -> Model:
    """Load a trained run for prediction: `mmrobust.load(run).predict({"photo": "a.jpg", "sound": None})`.

    Args:
        run: the run's folder, or the file that `mmrobust.export` made of it.
        checkpoint: `best` or `last`.
        device: `cpu`, `cuda`, `cuda:1`, ...; None: the first GPU if there is one.
        allow: further packages whose classes the run's configuration may name.

    Raises:
        UserError: the run is incomplete, damaged, or not a run of mmrobust.
    """
    # Imported here, because `import mmrobust` must not wait for torch.
    from mmrobust.predict.model import open_model

    return open_model(run, checkpoint=checkpoint, device=device, allow=allow)
