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
    """A trained run, ready to predict: `mmrobust.load(run).predict({"photo": "a.jpg", "sound": None})`.

    Args:
        run: its folder, or the file that `mmrobust.export` made of it.
        checkpoint: `best` or `last`.
        device: `cpu`, `cuda`, `cuda:1`, ...; None: the first GPU if there is one.
        allow: packages of yours whose classes the run is made of.

    Raises:
        UserError: the run is not complete, damaged, or not ours.
    """
    # Here, so that `import mmrobust` takes no time.
    from mmrobust.predict.model import open_model

    return open_model(run, checkpoint=checkpoint, device=device, allow=allow)
