"""What all tests share."""

import os
import tempfile

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# As a command line does; a command replaces it.
os.environ["MMROBUST_ALLOW"] = "tests"
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MMROBUST_CACHE", os.path.join(tempfile.gettempdir(), "mmrobust-tests"))  # noqa: PTH118

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from mmrobust.data.spec import DataSpec
from mmrobust.methods.base import Method
from mmrobust.methods.fusion import Fusion
from mmrobust.methods.late import LateFusion
from mmrobust.models.fusion import Concat

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What datasets remember is kept with the tests' files, not in the home folder."""
    os.environ["MMROBUST_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def build() -> Callable[..., Method]:
    """Makes a small method for a dataset, in eval mode; always the same weights."""

    def make(spec: DataSpec, method: type[Method] = Fusion, *, width: int = 8, **keys: Any) -> Method:
        torch.manual_seed(0)
        encoder: dict[str, Any] = {
            "name": "tiny",
            "pretrained": False,
            "weights": None,
            "norm": "batch",
            "width": width,
            "lr_factor": 1.0,
            "options": {},
        }
        encoder["decoder"] = {"widths": [8, 8], "blocks": 1, "norm": "batch"}
        base: dict[str, Any] = {
            "seed": 0,
            "encoder": encoder,
            "optimizer": partial(torch.optim.SGD, lr=0.1),
            "schedule": partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0),
        }
        if method is not LateFusion:
            base["fusion"] = Concat
        return method(spec=spec, **(base | keys)).eval()

    return make


@pytest.fixture
def results() -> dict[str, Any]:
    """What a result file holds: a combination that the method does not serve, and one that no sample has."""

    def metrics(accuracy: float | None) -> dict[str, float | None]:
        return {"accuracy": accuracy, "ece": None if accuracy is None else 0.125}

    return {
        "schema": 1,
        "status": "complete",
        "protocol": {},
        "primary": {"metric": "accuracy", "direction": "max"},
        "combinations": {
            "audio": {"n": 7, "metrics": metrics(0.25)},
            "visual": None,
            "audio+visual": {"n": 0, "metrics": metrics(None)},
        },
        "aggregates": {name: metrics(0.5) for name in ("average", "worst", "full", "available")},
    }
