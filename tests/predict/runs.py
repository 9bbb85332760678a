"""Small trained runs, one of each task, and what they said of their own test."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from mmrobust.combinations import all_combinations, combination_name
from mmrobust.evaluation.results import read_predictions
from mmrobust.predict.__main__ import main as predict
from mmrobust.run import main as run
from tests.data.manifest_tree import make_manifest, make_masks, read_rows, write_table

SMALL = [
    "data=manifest",
    "data.workers=0",
    "encoder=tiny",
    "encoder.width=8",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "logger=none",
]


def train(folder: Path, *given: str) -> Path:
    """A run in `folder`."""
    assert run([*SMALL, *given, f"paths.run={folder}"]) == 0
    return folder


def classification(root: Path) -> Path:
    """A run that tells cats from dogs by an image, a depth map, a sound, a vector; method qmf, which has weights."""
    table = make_manifest(root / "data", 12)
    columns = "data.columns=[rgb,depth,audio,vector]"
    return train(
        root / "run", f"data.manifest={table}", columns, "method=qmf", "data.n_fft=64", "data.hop=64"
    )


def segmentation(root: Path) -> Path:
    """A run that sees three stripes and keeps its masks; method dmrnet, which has an uncertainty."""
    return train(
        root / "run", f"data.manifest={make_masks(root / 'data')}", "method=dmrnet", "keep_masks=true"
    )


def sentences(root: Path, target: str = "label", **keys: str) -> Path:
    """A run with a text, a clip and a series, for a target of any kind; method transformer or dropout."""
    rows = read_rows(make_manifest(root / "data", 12))
    values = {"label": ("good", "bad"), "value": ("0.5", "-1.5"), "labels": ("loud|happy", "loud")}[target]
    table = [
        {
            "id": f"s{i}",
            target: values[i % 2],
            "said": f"this is {'fine' if i % 2 else 'awful'}, they said" if i else "",
            "sequence": row["sequence"],
            "video": row["video"],
        }
        for i, row in enumerate(rows)
    ]
    given = [f"{key}={value}" for key, value in keys.items()] or ["method=dropout"]
    path = write_table(root / "data/said.csv", table)
    return train(
        root / "run", f"data.manifest={path}", "encoder@encoder.said=text", "encoder.said.width=8", *given
    )


def table_of_test(root: Path, name: str, target: str) -> tuple[Path, list[dict[str, str]]]:
    """The rows of the run's test split, in its order and without their targets, as a CSV; and with them."""
    expected = read_predictions(root / "run/predictions.npz")
    rows = {row["id"]: row for row in read_rows(root / "data" / name)}
    chosen = [rows[i] for i in expected["ids"].tolist()]
    plain = [{k: v for k, v in row.items() if k not in (target, "split")} for row in chosen]
    return write_table(root / "data/new.csv", plain), chosen


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def every_combination(root: Path, table: Path, modalities: list[str]) -> dict[str, list[dict[str, str]]]:
    """Combination -> rows that the command line writes for it."""
    found = {}
    for combination in all_combinations(modalities):
        left = [m for m in modalities if m not in combination]
        drop = [f"missing=drop:{','.join(left)}"] if left else []
        output = root / f"{combination_name(combination)}.csv"
        predict([f"run={root / 'run'}", f"data.manifest={table}", f"output={output}", *drop])
        found[combination_name(combination)] = read_csv(output)
    return found


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
