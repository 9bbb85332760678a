"""Results as runs leave them, made without running."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmrobust.evaluation.results import write_results

# a name that would do harm where it is taken for markup or for a terminal's commands
EVIL = "<script>x</script>\n![x](http://x)\x1b]0;y\x07"


def result(
    scores: dict[str, float | None] | None = None,
    *,
    method: str = "dropout",
    seed: int = 0,
    overrides: tuple[str, ...] = (),
    train: tuple[str, dict[str, Any]] = ("none", {"name": "complete"}),
    test_hash: str = "full",
    seconds: float = 10.0,
    config_hash: str = "c0",
    n: int = 8,
    **protocol: Any,
) -> dict[str, Any]:
    """A `results.json` as `evaluation.description` makes it."""
    scores = scores or {"audio": 0.5, "visual": 0.6, "audio+visual": 0.7}
    rows = {
        name: None if value is None else {"n": n, "metrics": {"accuracy": value, "ece": 1 - value}}
        for name, value in scores.items()
    }
    values = [value for value in scores.values() if value is not None]
    average = sum(values) / len(values)
    return {
        "schema": 1,
        "status": "complete",
        "identity": {
            "method": method,
            "data": "avmnist",
            "encoder": "tiny",
            "fusion": "concat",
            "experiment": None,
            "task": "classification",
            "seed": seed,
            "config_hash": config_hash,
            "recipe_hash": "r0",
            "overrides": [f"method={method}", f"seed={seed}", *overrides],
            "teacher": None,
        },
        "protocol": {
            "split": "test",
            "data_fingerprint": "d0",
            "classes": 10,
            "modalities": ["audio", "visual"],
            "selection": "mean",
            "missing": {
                "train": {"protocol": train[1], "hash": train[0], "realised_rate": {}},
                "test": {"protocol": {"name": "complete"}, "hash": test_hash, "realised_rate": {}},
            },
            **protocol,
        },
        "primary": {"metric": "accuracy", "direction": "max"},
        "combinations": rows,
        "aggregates": {
            "average": {"accuracy": average, "ece": 1 - average},
            "worst": {"accuracy": min(values), "ece": 1 - min(values)},
        },
        "cost": {"train_seconds": seconds},
    }


def put(outputs: Path, *results: dict[str, Any]) -> list[Path]:
    """Write results into run folders, each newer than the one before."""
    paths = []
    for content in results:
        number = len(list(outputs.glob("*/*")))
        path = write_results(outputs / f"{content['identity']['method']}_avmnist" / f"run{number}", content)
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
        paths.append(path)
    return paths
