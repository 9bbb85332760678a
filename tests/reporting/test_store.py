"""A store: the same tables as its runs give, merged without loss, wrong rows told, commands that still compose."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mmrobust.config.compose import conf_folder
from mmrobust.report import main
from mmrobust.reporting.commands import check_command, command_of, overrides_of, portable
from mmrobust.reporting.runs import read_run
from mmrobust.reporting.store import of_metric, read_store
from mmrobust.reporting.store_rows import COLUMNS
from mmrobust.run import main as run
from tests.results import put, result
from tests.runs import tiny

STORES = sorted((conf_folder().parent / "results").glob("*.csv"))


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "results" / "avmnist.csv"


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    assert main([*map(str, arguments), "--format", "markdown"]) == 0
    printed = capsys.readouterr()
    return printed.out, printed.err


def some() -> list[dict[str, object]]:
    """Runs of two methods, three seeds; one combination that is not served; one that a search chose."""
    odd = {"audio": 0.1 + 0.2, "visual": None, "audio+visual": 1 / 3}
    tuned = {
        "trials": 20,
        "chosen": ["optimizer.lr"],
        "skipped": {"a b": "c, d"},
        "overrides": ("optimizer.lr=0.003",),
    }
    return [
        *(result(seed=seed, config_hash=f"d{seed}") for seed in range(3)),
        *(result(odd, method="late", seed=seed, config_hash=f"l{seed}", **tuned) for seed in range(3)),
    ]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_store_gives_the_tables_of_its_runs(outputs, store, capsys):
    put(outputs, *some())
    table, _ = told(capsys, outputs)
    printed, notes = told(capsys, outputs, "--store", store)
    assert printed == table
    assert f"{store}: 6 runs, of which 0 replaced others" in notes
    for place in (store, store.parent):
        assert told(capsys, place)[0] == table
    rows = rows_of(store)
    assert list(rows[0]) == list(COLUMNS)
    assert len(rows) == 6 * 3
    (row,) = [r for r in rows if r["run"] == "l2" and r["combination"] == "audio"]
    assert float(row["value"]) == 0.1 + 0.2
    assert (row["n"], row["trials"], row["chosen"]) == ("8", "20", "optimizer.lr=0.003")
    assert row["command"] == "python -m mmrobust.run method=late seed=2 optimizer.lr=0.003"
    (absent,) = [r for r in rows if r["run"] == "l2" and r["combination"] == "visual"]
    assert (absent["value"], absent["n"]) == ("", "")


def test_a_store_grows_and_loses_nothing(outputs, store, capsys):
    paths = put(outputs, *some())
    for path in reversed(paths):
        told(capsys, path.parent, "--store", store)
    whole = store.read_bytes()
    told(capsys, outputs, "--store", store)
    assert store.read_bytes() == whole
    better = {"audio": 0.9, "visual": 0.9, "audio+visual": 0.9}
    put(outputs.parent / "again", result(better, seed=1, config_hash="d1"))
    put(outputs.parent / "new defaults", result(better, seed=2, config_hash="other"))
    for folder in ("again", "new defaults"):
        _, notes = told(capsys, outputs.parent / folder, "--store", store)
        assert "6 runs, of which 1 replaced others" in notes
    told(capsys, outputs.parent / "again", "--metric", "ece", "--store", store)
    runs = of_metric(read_store(store).runs, None)
    assert [run.scores["average"] for run in runs if run.row["method"] == "dropout"] == pytest.approx(
        [0.6, 0.9, 0.9]
    )
    assert [run.scores["average"] for run in of_metric(read_store(store).runs, "ece")] == pytest.approx([0.1])
    assert {run.metric.name for run in runs} == {"accuracy"}


def test_trials_are_not_stored(outputs, store, capsys):
    trial = result(method="late", config_hash="t0")
    trial["identity"]["study"] = {"name": "s", "trial": 0}
    put(outputs, trial, result())
    told(capsys, outputs, "--store", store)
    assert {row["method"] for row in rows_of(store)} == {"dropout"}
    put(outputs.parent / "trials", trial)
    assert main([str(outputs.parent / "trials"), "--store", str(store)]) == 2
    assert "there is no run to store" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "said", "left"),
    [
        (lambda lines: [*lines[:-1], lines[-1][:9]], "line 19: 2 of 19 columns", 5),
        (lambda lines: lines[:-1], "run l2 is left out: it has 2 combinations of audio, visual", 5),
        (lambda lines: [*lines, lines[-1]], "line 20: audio+visual comes a second time", 5),
        (
            lambda lines: [*lines[:1], lines[1].replace("0.5", "nan"), *lines[2:]],
            "the value nan is no score",
            5,
        ),
        (
            lambda lines: [*lines[:1], lines[1].replace("0.5", "x"), *lines[2:]],
            "the value 'x' is no number",
            5,
        ),
        (lambda lines: [*lines[:1], lines[1].replace(",0,audio", ",7,audio"), *lines[2:]], "seed is '0'", 5),
        (
            lambda lines: [*lines[:1], *(x.replace("split=test", '"') for x in lines[1:4]), *lines[4:]],
            "line 2",
            0,
        ),
        (
            lambda lines: [*lines[:1], *(x.replace("python -m", "rm") for x in lines[1:4]), *lines[4:]],
            "no command",
            5,
        ),
    ],
)
def test_what_is_damaged_is_told_and_the_rest_reported(outputs, store, capsys, damage, said, left):
    put(outputs, *some())
    told(capsys, outputs, "--store", store)
    store.write_text("\n".join(damage(store.read_text().splitlines())) + "\n")
    stored = read_store(store)
    assert said in "\n".join(stored.problems)
    assert len(stored.runs) == left
    before = store.read_bytes()
    assert main([str(outputs), "--store", str(store)]) == 2
    assert store.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "it lacks 19"),
        (b"epoch,loss\n1,2\n", "it lacks 19 (method, data, encoder, …) and it has besides 2 (epoch, loss)"),
        ((",".join([*COLUMNS, "note"]) + "\n").encode(), "it has besides 1 (note)"),
        ((",".join(reversed(COLUMNS)) + "\n").encode(), "its columns are in another order"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_foreign_file_is_a_line_and_never_written_to(outputs, tmp_path, capsys, text, said):
    put(outputs, result())
    path = tmp_path / "foreign.csv"
    path.write_bytes(text)
    table, notes = told(capsys, outputs, path)
    assert "dropout" in table
    assert said in notes
    assert len(notes.splitlines()) == 1
    assert main([str(outputs), "--store", str(path)]) == 2
    assert path.read_bytes() == text


def test_what_a_store_says_is_text(outputs, store, capsys):
    put(outputs, result())
    told(capsys, outputs, "--store", store)
    store.write_text(store.read_text().replace("dropout,", '"<b>\x1b[1m|",'))
    printed, _ = told(capsys, store)
    assert "<b>" not in printed
    assert "\x1b" not in printed
    assert r"&lt;b&gt;" in printed


def test_a_command_is_of_no_machine() -> None:
    given = [
        "method=dmrnet",
        "data=multiview",
        'data.file="/here/multi view/BBC.mat"',
        "encoder.weights=../weights/lite0.safetensors",
        "data.root=/here",
        "paths.outputs=/here/out",
        "hydra/launcher=joblib",
        "+logger.mine={x: 1}",
        "data.workers=4",
        "~callbacks.gradient_norm",
        "method.hard=[rgb,depth]",
        "missing.test.rate=0.3",
        "study.trials=20",
        "study.chosen=[optimizer.lr]",
        "seed=2",
    ]
    command = command_of(portable(given))
    assert command == (
        "python -m mmrobust.run method=dmrnet data=multiview data.file=BBC.mat encoder.weights=lite0.safetensors "
        "'method.hard=[rgb,depth]' missing.test.rate=0.3 study.trials=20 'study.chosen=[optimizer.lr]' seed=2"
    )
    assert portable(overrides_of(command)) == overrides_of(command)


def test_a_command_that_no_longer_composes_is_one_message(outputs, store, capsys):
    put(outputs, result(overrides=("method.gone=1",)))
    assert main([str(outputs), "--store", str(store)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "python -m mmrobust.run method=dropout method.gone=1 does not compose: " in said
    assert not store.exists()


@pytest.mark.parametrize("path", STORES, ids=lambda path: path.stem)
def test_every_stored_command_composes(path: Path) -> None:
    """Once for all seeds of a row."""
    stored = read_store(path)
    assert stored.problems == []
    commands = {
        tuple(t for t in overrides_of(r.origin.command) if not t.startswith("seed=")) for r in stored.runs
    }
    for given in sorted(commands):
        check_command(command_of(given))


def test_a_run_reads_back_as_it_was(outputs, store, capsys):
    (path,) = put(
        outputs, result(overrides=("optimizer.lr=0.003",), train=("h", {"name": "mcar", "rate": 0.3}))
    )
    path.write_text(
        path.read_text().replace('"train_seconds"', '"epochs": 7, "device": "cpu", "train_seconds"')
    )
    told(capsys, outputs, "--store", store)
    (stored,), read = read_store(store).runs, read_run(path)
    assert (stored.origin.epochs, stored.origin.device, stored.place) == (7, "cpu", store)
    for name in (
        "seed",
        "config_hash",
        "table",
        "row",
        "scores",
        "counts",
        "seconds",
        "metric",
        "origin",
        "study",
    ):
        assert getattr(stored, name) == getattr(read, name), name


@pytest.mark.slow
def test_a_stored_command_gives_its_numbers_again(tmp_path, capsys):
    """And the row has what a run records of itself."""
    assert run([*tiny("method=fusion", "data.num_test=32"), "seed=3", f"paths.outputs={tmp_path}/out"]) == 0
    told(capsys, tmp_path / "out", "--store", tmp_path / "first.csv")
    before = rows_of(tmp_path / "first.csv")
    (command,) = {row["command"] for row in before}
    assert str(tmp_path) not in command
    assert run([*overrides_of(command), "logger=none", f"paths.outputs={tmp_path}/again"]) == 0
    told(capsys, tmp_path / "again", "--store", tmp_path / "second.csv")
    timed = {"seconds": ""}
    assert [row | timed for row in rows_of(tmp_path / "second.csv")] == [row | timed for row in before]
    row = before[0]
    assert (row["encoder"], row["epochs"], row["peak"], row["seed"]) == ("tiny", "1", "1", "3")
    assert row["device"].startswith("cpu")
    assert (row["n"], row["trials"], row["chosen"]) == ("32", "", "")
