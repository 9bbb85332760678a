"""A user's table with sentences, with numbers to predict, with several labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmrobust.data.kinds import decode_text
from mmrobust.data.split import Key
from mmrobust.evaluate import main as evaluate
from mmrobust.evaluation.results import read_results
from mmrobust.run import main
from mmrobust.testing import check_dataset
from tests.data.manifest_tree import write_table
from tests.data.test_manifest import problem, ready

WORDS = ("It was great fun.", "I have seen better.", "What a day that was", "not my kind of film")


def rows_of(root: Path, count: int = 24, **columns: list[str]) -> list[dict[str, str]]:
    """`said`, sentences of which row 1 has none, and `x`, vectors that know the row's number modulo 4."""
    rows = []
    for i in range(count):
        np.save(root / f"{i}.npy", np.eye(4)[i % 4] + 0.01 * i)
        split = ("train", "train", "val", "test")[i // 4 % 4]
        row = {"id": f"s{i}", "split": split, "said": WORDS[i % 4], "x": f"{i}.npy"}
        rows.append(row | {name: values[i % len(values)] for name, values in columns.items()})
    rows[1]["said"] = ""
    return rows


def table(root: Path, **columns: list[str]) -> Path:
    return write_table(root / "my.csv", rows_of(root, **columns))


# Sentences


def test_a_column_of_sentences(tmp_path: Path) -> None:
    data = ready(table(tmp_path, label=["no", "yes"]))
    check_dataset(data)
    spec = data.spec.modalities["said"]
    assert (spec.kind, spec.shape) == ("text", (19,))
    first, second = (data.splits["train"][Key(0, i)].inputs["said"] for i in (0, 1))
    assert decode_text(first) == WORDS[0]
    assert second is None
    assert not data.splits["train"].present[1, 0]
    assert "text 19; missing in 1 rows" in data.told(data.infer())


def test_how_much_of_a_text_is_read(tmp_path: Path) -> None:
    data = ready(table(tmp_path, label=["no", "yes"]), "data.modalities.said.size=6")
    assert decode_text(data.splits["train"][Key(0, 0)].inputs["said"]) == "It was"
    assert "said.size=0: of text it is a whole number" in problem(
        tmp_path / "my.csv", "data.modalities.said.size=0"
    )


def test_single_words_are_text_where_that_is_said(tmp_path: Path) -> None:
    path = table(tmp_path, label=["no", "yes"], word=["good", "bad"])
    assert "column word: not one of" in problem(path)
    assert ready(path, "data.modalities.word.kind=text").spec.modalities["word"].shape == (4,)


def test_files_that_cannot_be_read_are_no_sentences(tmp_path: Path) -> None:
    path = table(tmp_path, label=["no", "yes"], clip=["a.mp4", "b.mp4"])
    assert "column clip: not one of" in problem(path)


# Numbers


def test_numbers(tmp_path: Path) -> None:
    data = ready(table(tmp_path, value=["1.5", "-2", "1e1", "0"]))
    check_dataset(data)
    spec = data.spec
    assert (spec.task, spec.num_classes, spec.classes) == ("regression", 1, ("value",))
    assert spec.target_mean == pytest.approx((9.5 / 4,))
    assert spec.target_std == pytest.approx((np.std([1.5, -2, 10, 0]),))
    batch = next(iter(data.loader("test")))
    assert batch.target.dtype == torch.float32
    assert batch.target[:, 0].tolist() == [1.5, -2, 10, 0]


def test_several_numbers(tmp_path: Path) -> None:
    path = table(tmp_path, value=["1 2", "3 5"])
    assert ready(path).spec.classes == ("value_1", "value_2")
    assert ready(path, "data.classes=[joy,anger]").spec.classes == ("joy", "anger")
    assert "data.classes names 1 numbers, the column value holds 2" in problem(path, "data.classes=[joy]")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["1", "much"], "values that are no numbers"),
        (["1", "nan"], "values that are no numbers"),
        (["1", "1 2"], "holds unequally many numbers: 1 in line 2, 2 in line 3"),
        (["1", ""], "rows without a value"),
    ],
)
def test_what_is_no_number(tmp_path: Path, values: list[str], told: str) -> None:
    assert told in problem(table(tmp_path, value=values))


# Several labels


def test_several_labels(tmp_path: Path) -> None:
    data = ready(table(tmp_path, labels=["loud | happy", "", "happy", "sad|loud"]))
    check_dataset(data)
    spec = data.spec
    assert (spec.task, spec.num_classes, spec.classes) == ("multilabel", 3, ("happy", "loud", "sad"))
    batch = next(iter(data.loader("test")))
    assert batch.target.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 1]]
    assert "labels that data.classes has not: 1 (line 5: sad)" in problem(
        tmp_path / "my.csv", "data.classes=[happy,loud]"
    )


def test_labels_that_train_lacks(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, labels=["a", "b"])
    rows[12]["labels"] = "a|new"
    assert "labels that no row of train has: 1 (new (test, line 14))" in problem(
        write_table(tmp_path / "my.csv", rows)
    )


def test_which_targets(tmp_path: Path) -> None:
    path = table(tmp_path, value=["1", "2"], labels=["a", "b"])
    assert "has value and labels; choose data.target=value or labels" in problem(path)
    data = ready(path, "data.target=labels")
    assert data.spec.task == "multilabel"
    assert list(data.spec.modalities) == ["said", "x"]


# Runs


@pytest.mark.parametrize(
    ("columns", "encoder"),
    [
        ({"value": ["1.5", "-2", "10", "0"]}, "text"),
        ({"labels": ["loud | happy", "", "happy", "sad|loud"]}, "tiny"),
    ],
)
def test_a_run(tmp_path: Path, columns: dict[str, list[str]], encoder: str) -> None:
    path = table(tmp_path, **columns)
    keys = [
        "data=manifest",
        f"data.manifest={path}",
        f"encoder={encoder}",
        "encoder.width=16",
        "data.workers=0",
    ]
    keys += ["method=dropout", "trainer.max_epochs=2", "trainer.accelerator=cpu", f"paths.run={tmp_path}/run"]
    assert main(keys) == 0
    results = read_results(tmp_path / "run")
    assert list(results["combinations"]) == ["said", "x", "said+x"]
    assert evaluate([f"run={tmp_path}/run", "verify=true"]) == 0
    assert evaluate([f"run={tmp_path}/run", f"data.manifest={path}"]) == 0
    assert "no panel.png was drawn" not in (tmp_path / "run/log.txt").read_text()


@pytest.mark.data
@pytest.mark.slow
def test_mosi(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Raw sentences beside three vectors: four modalities, fifteen combinations."""
    import os

    path = Path(os.environ.get("MMROBUST_DATA", "data")) / "mosi/mosi.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    keys = ["data=manifest", f"data.manifest={path}", "encoder=text", "data.workers=0", "method=dropout"]
    keys += ["trainer.max_epochs=3", "trainer.accelerator=cpu", f"paths.run={tmp_path}/run"]
    assert main(keys) == 0
    combinations = read_results(tmp_path / "run")["combinations"]
    assert len(combinations) == 15
    assert combinations["transcript"]["metrics"]["accuracy"] > 0.5
