"""The report: what shares a cell, what never does, and the numbers in it."""

import re
from pathlib import Path
from typing import Any

import pytest

from mmrobust.evaluation.results import write_results
from mmrobust.report import main
from tests.results import EVIL, put, result

COMBINATIONS = ("audio", "visual", "audio+visual")


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def markdown(
    capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[dict[str, list[list[str]]], str]:
    """The printed tables as heading -> rows of cells, checked to be well-formed; and what stderr said."""
    assert main([*map(str, arguments), "--format", "markdown"]) == 0
    printed = capsys.readouterr()
    tables: dict[str, list[list[str]]] = {}
    for line in printed.out.splitlines():
        if line.startswith("### "):
            rows = tables.setdefault(line[4:], [])
        elif line:
            assert line.startswith("| ")
            assert line.endswith(" |")
            unmarked = re.sub(r"\*\*|</?ins>", "", line[2:-2])
            rows.append(unmarked.replace("\\|", "\0").split(" | "))
    for heading, rows in tables.items():
        assert rows[1] == ["---", *["---:"] * (len(rows[0]) - 1)]
        assert len({len(row) for row in rows}) == 1
        tables[heading] = [rows[0], *rows[2:]]
    return tables, printed.err


def only(tables: dict[str, list[list[str]]]) -> list[list[str]]:
    assert len(tables) == 1
    return next(iter(tables.values()))


def test_mean_and_sample_deviation_by_hand(outputs, capsys):
    scores = [(0.50, 0.60, 0.70), (0.52, 0.66, 0.71), (0.54, 0.60, 0.78)]
    put(
        outputs,
        *(
            result(dict(zip(COMBINATIONS, s, strict=True)), seed=i, seconds=10.0 + i, config_hash=f"c{i}")
            for i, s in enumerate(scores)
        ),
    )
    tables, err = markdown(capsys, outputs)
    assert list(tables) == ["avmnist · test · accuracy (%) · selection mean"]
    header, row = only(tables)
    assert header == ["method", *COMBINATIONS, "average", "worst", "seeds", "train s"]
    # audio 50, 52, 54: mean 52, sqrt((4 + 0 + 4) / 2) = 2. visual 60, 66, 60: 62, sqrt((4 + 16 + 4) / 2) = 3.46.
    # both 70, 71, 78: 73, sqrt((9 + 4 + 25) / 2) = 4.36. averages 60, 63, 64: 62.33, sqrt(13 / 3) = 2.08.
    assert row == [
        "dropout",
        "52.0 ± 2.0",
        "62.0 ± 3.5",
        "73.0 ± 4.4",
        "62.3 ± 2.1",
        "52.0 ± 2.0",
        "3",
        "11.0",
    ]
    assert err == ""


def test_one_seed_has_no_deviation(outputs, capsys):
    put(outputs, result())
    _, row = only(markdown(capsys, outputs)[0])
    assert row[1:] == ["50.0", "60.0", "70.0", "60.0", "50.0", "1", "10.0"]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"data_fingerprint": "d1"}, "samples (fingerprint) d1"),
        ({"test_hash": "holes"}, "test masks complete (holes)"),
        ({"selection": "paper"}, "selection paper"),
        ({"split": "val"}, "avmnist · val"),
        ({"classes": 11}, "classes 11"),
        (
            {"noise": {part: {"protocol": {"name": "rain"}} for part in ("train", "test")}},
            "test noise rain",
        ),
    ],
)
def test_incomparable_runs_have_tables_of_their_own(outputs, capsys, other, named):
    put(outputs, result(), result(seed=1, **other), result(method="dmrnet"))
    tables, notes = markdown(capsys, outputs)
    assert len(tables) == 2
    assert sum(named in heading for heading in tables) == 1
    heads = {heading.split(" · ")[1] for heading in tables} | {heading.split(" · ")[3] for heading in tables}
    told = "not comparable, so in 2 tables and never averaged, are runs with other "
    assert (told in notes) == (len(heads) == 2)  # else the headings say it
    assert sorted(len(rows) for rows in tables.values()) == [2, 3]
    assert all(row[-2] == "1" for rows in tables.values() for row in rows[1:])


@pytest.mark.parametrize(
    ("other", "label"),
    [
        ({"overrides": ("method.weight=2",)}, "dropout, method.weight=2"),
        ({"overrides": ("+callbacks.ema._target_=x",)}, "dropout, callbacks.ema._target_=x"),
        (
            {"overrides": ("missing=mcar",), "train": ("holes", {"name": "mcar", "rate": 0.3})},
            "dropout, missing.train=mcar rate=0.3",
        ),
        ({"train": ("holes", {"name": "complete"})}, "dropout, train masks=holes"),
        ({"overrides": ("missing.seed=1",), "train": ("h", {"name": "complete"})}, "dropout, missing.seed=1"),
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(outputs, capsys, other, label):
    put(outputs, result(), result(seed=1, **other))
    rows = only(markdown(capsys, outputs)[0])[1:]
    assert [row[-2] for row in rows] == ["1", "1"]
    assert label in [row[0] for row in rows]


CLEAN = {"protocol": {"name": "clean"}}


def gaussian(**keys: Any) -> dict[str, Any]:
    return {"protocol": {"name": "gaussian", "as_released": {"same_pattern": False}, **keys}}


def test_runs_tested_with_other_noise_are_never_in_one_table(outputs, capsys):
    tests = [CLEAN, gaussian(level=5), gaussian(level=10), gaussian(level=10.0), gaussian(level=10, seed=1)]
    old = result(seed=9)  # from before there was noise
    put(outputs, old, *(result(seed=i, noise={"train": CLEAN, "test": t}) for i, t in enumerate(tests)))
    tables, _ = markdown(capsys, outputs)
    noises = {heading.rpartition("noise ")[2]: rows[1][-2] for heading, rows in tables.items()}
    expected = {"clean": "2", "gaussian level=5": "1", "gaussian level=10": "2"}
    assert noises == expected | {"gaussian level=10 seed=1": "1"}


def test_training_noise_makes_a_row(outputs, capsys):
    noise = {"protocol": {"name": "udmlv2", "start": 0.5, "as_released": {"same_pattern": True, "x": False}}}
    put(outputs, result(), result(noise={"train": noise, "test": CLEAN}, overrides=("noise=udml_v2",)))
    rows = only(markdown(capsys, outputs)[0])[1:]
    label = "dropout, noise.train=udmlv2 start=0.5 as_released.same_pattern"
    assert [row[0] for row in rows] == ["dropout, noise.train=clean", label]


def test_overrides_without_effect_do_not_part_rows(outputs, capsys):
    put(
        outputs,
        result(overrides=("logger=none", "method.weight=1", "method.weight=2")),
        result(seed=1, overrides=("method.weight=2", "trainer.enable_progress_bar=false", "data.workers=3")),
        result(seed=2, overrides=("paths.run=here", "hydra.verbose=true", "method.weight=2", "data=avmnist")),
    )
    (row,) = only(markdown(capsys, outputs)[0])[1:]
    assert (row[0], row[-2]) == ("dropout", "3")


def test_rows_are_in_the_order_of_their_labels_and_can_be_runs(outputs, capsys):
    put(outputs, result(), result(method="dmrnet"), result(seed=1))
    assert [row[0] for row in only(markdown(capsys, outputs)[0])[1:]] == ["dmrnet", "dropout"]
    rows = only(markdown(capsys, outputs, "--rows", "run")[0])[1:]
    assert [row[0] for row in rows] == ["dmrnet, seed=0", "dropout, seed=0", "dropout, seed=1"]


def test_unserved_combination_is_a_dash_and_the_average_says_so(outputs, capsys):
    put(
        outputs,
        result({"audio": 0.5, "visual": None, "audio+visual": 0.7}, method="osmd"),
        result(),
    )
    rows = only(markdown(capsys, outputs)[0])[1:]
    assert [row[0] for row in rows] == ["dropout", "osmd (2 of 3 combinations)"]
    assert rows[1][1:6] == ["50.0", "–", "70.0", "60.0", "50.0"]


def test_combination_without_samples_is_a_dash(outputs, capsys):
    content = result({"audio": 0.5, "visual": 0.6, "audio+visual": 0.7})
    content["combinations"]["visual"] = {"n": 0, "metrics": {"accuracy": None, "ece": None}}
    put(outputs, content)
    (row,) = only(markdown(capsys, outputs)[0])[1:]
    assert (row[0], row[2]) == ("dropout", "–")


def test_seed_run_twice_counts_once_the_newest(outputs, capsys):
    new = {"audio": 0.9, "visual": 0.9, "audio+visual": 0.9}
    old, _, other = put(outputs, result(seed=3), result(new, seed=3), result(new, seed=4))
    tables, err = markdown(capsys, outputs)
    (row,) = only(tables)[1:]
    assert row[1] == "90.0 ± 0.0"
    assert row[-2] == "2"
    assert err == f"dropout: seed 3 again; left out the older {old.parent}\n"
    write_results(other.parent, result(new, seed=3, config_hash="c1"))
    assert "configuration hash differs" in markdown(capsys, outputs)[1]


def test_foreign_incomplete_and_unfinished_are_skipped_with_a_line(outputs, capsys):
    put(outputs, result())
    texts = {
        "list": "[]",
        "broken": "{",
        "schema": '{"schema": 9}',
        "empty": '{"schema": 1, "status": "complete"}',
        "running": '{"schema": 1, "status": "running"}',
        "binary": "",
    }
    for name, text in texts.items():
        (outputs / name).mkdir()
        (outputs / name / "results.json").write_text(text)
    (outputs / "binary" / "results.json").write_bytes(b"\xff\xfe")
    (outputs / "unfinished").mkdir()
    (outputs / "unfinished" / "overrides.txt").write_text("seed=0\n")
    tables, err = markdown(capsys, outputs)
    assert len(only(tables)) == 2
    assert len(err.splitlines()) == 7
    assert all(line.startswith("skipped: ") for line in err.splitlines())
    assert all(f"/{name}" in err for name in [*texts, "unfinished"])


def test_result_without_fingerprint_is_not_comparable_with_anything(outputs, capsys):
    content = result()
    del content["protocol"]["data_fingerprint"]
    put(outputs, content, result(seed=1))
    tables, err = markdown(capsys, outputs)
    assert only(tables)[1][-2] == "1"
    assert "data_fingerprint" in err


def test_teachers_and_evaluations_only_when_given(outputs, capsys):
    put(outputs, result())
    write_results(outputs / "teachers" / "t", result(method="teacher"))
    write_results(outputs / "dropout_avmnist" / "run0" / "evaluations" / "e", result(method="again"))
    assert [row[0] for row in only(markdown(capsys, outputs)[0])[1:]] == ["dropout"]
    given = markdown(capsys, outputs, outputs / "teachers", outputs / "dropout_avmnist")[
        0
    ]  # one of them twice
    assert [(row[0], row[-2]) for row in only(given)[1:]] == [("dropout", "1"), ("teacher", "1")]


def test_a_published_setting_says_what_has_become_of_it(outputs, capsys):
    known, own = result(method="dmrnet"), result(method="late")
    known["identity"]["experiment"], own["identity"]["experiment"] = "dmrnet_cremad", "of_my_own"
    put(outputs, known, own)
    _, notes = markdown(capsys, outputs)
    assert "experiment=dmrnet_cremad: never run here: the media were not at hand" in notes
    assert "of_my_own" not in notes


def test_other_metric(outputs, capsys):
    put(outputs, result())
    tables, _ = markdown(capsys, outputs, "--metric", "ece")
    assert "ece (%, lower is better)" in next(iter(tables))
    assert only(tables)[1][1:6] == ["50.0", "40.0", "30.0", "40.0", "50.0"]  # the worst is the highest


def test_mistakes_say_what_to_do(outputs, tmp_path, capsys):
    assert main([str(outputs)]) == 2
    assert f"{outputs} is not a folder; give the one" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "train first" in capsys.readouterr().err
    put(outputs, result())
    assert main([str(outputs), "--metric", "f2"]) == 2
    assert "it has accuracy, ece" in capsys.readouterr().err
    assert main([str(outputs), "--output", str(outputs)]) == 2
    assert "no suffix names no format; end it in .txt, .md, .tex, .csv, .json, or" in capsys.readouterr().err
    assert main([str(outputs), "--output", str(outputs), "--format", "latex"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_terminal_table_and_markdown_file(outputs, tmp_path, capsys):
    put(outputs, result(), result(seed=1, overrides=("method.parts=[audio]", "method.rule=a|b")))
    path = tmp_path / "made" / "table.md"
    assert main([str(outputs), "--output", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "method.parts=[audio]" in printed  # not taken for markup
    assert "avmnist · test · accuracy (%) · selection mean" in printed
    assert r"method.rule=a\|b" in path.read_text(encoding="utf-8")
    markdown(capsys, outputs)


def test_what_a_result_says_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(tmp_path / "a", result(method=EVIL))
    assert main([str(tmp_path), "--format", "markdown"]) == 0
    told = capsys.readouterr().out
    assert not {"<script>", "](http", "\x1b", "\x07"} & {
        word for word in ("<script>", "](http", "\x1b", "\x07") if word in told
    }
    assert len([line for line in told.splitlines() if line.startswith("| ")]) == 3
    assert main([str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("identity.seed", [1]),
        ("identity.seed", "x"),
        ("identity.recipe_hash", {"a": 1}),
        ("identity.study", {"name": [1]}),
        ("identity", []),
        ("protocol.missing.train.hash", [1]),
        ("protocol.missing", None),
        ("combinations.audio.metrics.accuracy", "high"),
        ("aggregates.average.accuracy", [1]),
        ("cost.train_seconds", "x"),
        ("status", [1]),
        ("combinations", 3),
    ],
)
def test_a_damaged_result_does_not_hide_the_others(
    where: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path / "good", result())
    bad: Any = result(seed=1)
    bad.setdefault("cost", {})
    *parents, last = where.split(".")
    node = bad
    for key in parents:
        node = node[key]
    node[last] = value
    write_results(tmp_path / "bad", bad)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/results.json").write_text("[" * 100_000)
    assert main([str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert "dropout" in told.out
    assert f"skipped: {tmp_path}/deep/results.json is not a result file" in told.err
