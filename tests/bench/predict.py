"""Predicting files: the command over a loop that one would write by hand."""

from __future__ import annotations

import csv
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from mmrobust.batch import Batch
from mmrobust.predict.model import Model, open_model
from mmrobust.predict.request import parse
from mmrobust.predict.stream import predict_all
from mmrobust.run import main as run

SIZE = {"rows": 512, "pixels": 64, "of_files": 160, "batch": 32, "encoder": "resnet18", "modalities": 2}


def predict_rows_per_second_ratio(rounds: int) -> dict[str, Any]:
    """Rows a second of the command, without its start, over those of the loop: a table of two images a row."""
    ratios, speeds = [], []
    with tempfile.TemporaryDirectory() as name, redirect_stdout(sys.stderr):
        folder = Path(name)
        table = make_table(folder, SIZE["rows"])
        given = ["method=dropout", "data=manifest", f"data.manifest={table}", "encoder=resnet18"]
        sizes = [f"data.modalities.{m}.size={SIZE['pixels']}" for m in ("left", "right")]
        short = ["trainer=cpu", "logger=none", "trainer.limit_train_batches=1", "trainer.max_epochs=1"]
        with redirect_stderr((folder / "log").open("w")):
            assert run([*given, *sizes, *short, "data.workers=0", f"paths.run={folder}/run"]) == 0
        model = open_model(folder / "run", checkpoint="best", device="cpu", allow=None)
        request = parse(
            [
                f"run={folder}/run",
                f"data.manifest={table}",
                f"output={folder}/p.csv",
                f"batch_size={SIZE['batch']}",
            ]
        )
        for _ in range(rounds + 1):
            started = time.perf_counter()
            by_hand(model, table, folder / "q.csv")
            middle = time.perf_counter()
            assert predict_all(request, model) == (SIZE["rows"], 0)
            ended = time.perf_counter()
            ratios.append((middle - started) / (ended - middle))
            speeds.append(SIZE["rows"] / (ended - middle))
    return {
        "name": "predict_rows_per_second_ratio",
        "value": round(statistics.median(ratios[1:]), 3),
        "unit": "ratio",
        "against": "a hand-written loop over the same table",
        "conditions": {
            "goal": 0.95,
            "rounds": rounds,
            "rows_per_second": round(statistics.median(speeds[1:])),
            **SIZE,
        },
    }


def make_table(folder: Path, rows: int) -> Path:
    """Two photos a row, as noisy as those of a camera."""
    rng = np.random.default_rng(0)
    lines = ["id,label,left,right"]
    for i in range(rows):
        for side in ("left", "right"):
            image = rng.integers(0, 256, (SIZE["of_files"] // 8, SIZE["of_files"] // 8, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{side}{i}.jpg"), cv2.resize(image, (SIZE["of_files"],) * 2))
        lines.append(f"s{i},{'ab'[i % 2]},left{i}.jpg,right{i}.jpg")
    (folder / "my.csv").write_text("\n".join(lines) + "\n")
    return folder / "my.csv"


def by_hand(model: Model, table: Path, output: Path) -> None:
    """What somebody writes who knows the table, the sizes and the statistics."""
    columns = {m: model.readers[m].load.__self__ for m in ("left", "right")}  # type: ignore[union-attr]
    with table.open(newline="") as file, output.open("w", newline="") as out:
        writer = csv.writer(out)
        rows = list(csv.DictReader(file))
        for start in range(0, len(rows), SIZE["batch"]):
            part = rows[start : start + SIZE["batch"]]
            inputs = {
                m: torch.stack([picture(table.parent / row[m], c.mean, c.std) for row in part])
                for m, c in columns.items()
            }
            batch = Batch(
                inputs=inputs,
                available=torch.ones(len(part), 2, dtype=torch.bool),
                target=torch.zeros(len(part), dtype=torch.int64),
                noise_level=torch.zeros(len(part), 2),
                index=torch.arange(len(part)),
                ids=[row["id"] for row in part],
            )
            with torch.inference_mode():
                odds = model.method(batch).logits.softmax(1).tolist()
            for row, p in zip(part, odds, strict=True):
                writer.writerow([row["id"], "left+right", model.classes[int(np.argmax(p))], *p])


def picture(path: Path, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    image = cv2.resize(image, (SIZE["pixels"],) * 2, interpolation=cv2.INTER_AREA)
    x = torch.from_numpy(image).float().div(255).movedim(-1, 0)
    return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
