"""Searches: what is tried, kept, pruned, continued after a kill, refused; equal tuning of methods."""

from __future__ import annotations

import csv
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from mmrobust.errors import UserError
from mmrobust.evaluate import main as evaluate
from mmrobust.evaluation.results import read_results
from mmrobust.report import main as report
from mmrobust.run import main
from mmrobust.sweeps.storage import STORAGE, compare, open_storage, without_password
from mmrobust.training.locks import locked
from tests.runs import fault, in_a_process, tiny

optuna = pytest.importorskip("optuna")

SMALL = tiny("data.num_val=64", "data.num_test=32", "data.batch_size=32", "allow=[tests]")
RATES = "optimizer.lr=tag(log,interval(1e-3,1e-1))"


def search(tmp_path: Path, *more: str) -> list[str]:
    return ["-m", "sweep=optuna", "method=fusion", *SMALL, f"paths.outputs={tmp_path}/out", *more]


def study(tmp_path: Path, name: str = "fusion_synthetic") -> Any:
    backend = optuna.storages.journal.JournalFileBackend(f"{tmp_path}/out/studies/{name}.journal")
    return optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))


def runs(tmp_path: Path) -> dict[float, Path]:
    """Learning rate -> folder."""
    found = {}
    for path in (tmp_path / "out").glob("*/*/config.yaml"):
        line = next(line for line in path.read_text().splitlines() if line.strip().startswith("lr:"))
        found[float(line.split(":")[1])] = path.parent
    return found


def trials(tmp_path: Path) -> list[tuple[str, dict[str, Any], float | None]]:
    return [(t.state.name, t.params, t.value) for t in study(tmp_path).trials]


@pytest.mark.slow
def test_a_search_is_by_the_validation_score_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = search(tmp_path, RATES, "optimizer=adam,sgd", "sweep.trials=2")
    assert main(command) == 0
    done, folders = trials(tmp_path), runs(tmp_path)
    assert len(done) == len(folders) == 2
    for state, params, value in done:
        folder = folders[params["optimizer.lr"]]
        results = read_results(folder)
        with (folder / "metrics.csv").open() as file:
            logged = [row["val/average/accuracy"] for row in csv.DictReader(file)]
        (score,) = (float(text) for text in logged if text)
        assert (state, value) == ("COMPLETE", pytest.approx(score))
        assert results["selection"] == {
            "metric": "val/average/accuracy",
            "value": value,
            "epoch": 1,
            "checkpoint": "best",
        }
        assert results["identity"]["study"]["name"] == "fusion_synthetic"
        assert not any("study" in text for text in results["identity"]["overrides"])
    printed = capsys.readouterr().out
    assert f"optimizer.lr={study(tmp_path).best_params['optimizer.lr']}" in printed
    assert "run it: python -m mmrobust.run -m method=fusion" in printed
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*/results.json")}
    assert main([*command[:-1], "sweep.trials=3"]) == 0
    assert trials(tmp_path)[:2] == done
    assert len(trials(tmp_path)) == 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert main([*command[:-1], "sweep.trials=3"]) == 0
    assert len(trials(tmp_path)) == 3
    # another space, another configuration: refused before anything runs
    for change, words in (
        ([RATES, "sweep.trials=9"], "searches another space: optimizer differ"),
        (
            [*command[-3:-1], "method=late", "sweep.name=fusion_synthetic"],
            "made with method=fusion, not method=late",
        ),
    ):
        assert main(search(tmp_path, *change)) == 2
        error = capsys.readouterr().err
        assert words in error
        assert "sweep.name=<name>" in error
    assert len(trials(tmp_path)) == len(runs(tmp_path)) == 3


@pytest.mark.slow
def test_a_killed_search_ends_as_an_undisturbed_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in the second trial's training, and after the batch of two has run but before its end is told."""
    command = ["sweep.trials=3", "sweep.parallel=2", RATES, "keep=all"]
    tables = []
    for name in ("undisturbed", "killed"):
        argv = search(tmp_path / name, *command, fault("batch", 2, signal.SIGKILL, tmp_path))
        if name == "undisturbed":
            (tmp_path / "marker").touch()
        else:
            (tmp_path / "marker").unlink()
            assert in_a_process(argv, tmp_path / "output.txt") == -signal.SIGKILL
            assert [state for state, *_ in trials(tmp_path / name)] == ["RUNNING", "RUNNING"]
        assert in_a_process(argv, tmp_path / "output.txt") == 0, (tmp_path / "output.txt").read_text()
        assert report([f"{tmp_path}/{name}/out", "--format", "markdown"]) == 0
        lines = capsys.readouterr().out.splitlines()
        tables.append([line.rsplit("|", 2)[0] for line in lines])  # without the seconds
    assert trials(tmp_path / "undisturbed") == trials(tmp_path / "killed")
    assert tables[0] == tables[1]
    assert sum(line.startswith("| fusion") for line in tables[0]) == 3


@pytest.mark.slow
def test_a_pruned_trial_is_told_and_not_begun_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    more = ["sweep.pruner=median", "sweep.startup_trials=1", "sweep.startup_epochs=0", "sweep.sampler=random"]
    command = search(tmp_path, RATES, *more, "trainer.max_epochs=3", "sweep.trials=5")
    assert main(command) == 0
    states = [trial.state.name for trial in study(tmp_path).trials]
    assert states.count("PRUNED") >= 1
    assert states.count("COMPLETE") >= 2
    folders = runs(tmp_path)
    for trial in study(tmp_path).trials:
        folder = folders[trial.params["optimizer.lr"]]
        status, epochs = read_results(folder)["status"], len(trial.intermediate_values)
        if trial.state.name == "PRUNED":
            assert (status, read_results(folder)["epochs"]) == ("pruned", epochs)
            assert epochs < 3
            assert not list(folder.glob("checkpoints/*"))
        else:
            assert (status, epochs) == ("complete", 3)
            assert read_results(folder)["selection"]["value"] == max(trial.intermediate_values.values())
    printed = capfd.readouterr().out
    assert f"{states.count('PRUNED')} pruned" in printed
    # not even if it was not told to the study any more
    pruned = next(t for t in study(tmp_path).trials if t.state.name == "PRUNED")
    folder = folders[pruned.params["optimizer.lr"]]
    before = (folder / "results.json").stat().st_mtime_ns
    (tmp_path / "out/studies/fusion_synthetic.journal").unlink()
    assert main(command) == 0
    assert [trial.state.name for trial in study(tmp_path).trials] == states
    assert (folder / "results.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_equal_tuning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A study for each method, then other seeds with its best values; reports keep the trials apart."""
    argv = ["-m", "sweep=fair", *SMALL, f"paths.outputs={tmp_path}/out", "sweep.trials=2"]
    methods = "method=fusion,dropout"
    assert main([*argv, methods, "sweep.seeds=[0,1]"]) == 2
    assert "has seed=0, with which the trials run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*argv, methods, "sweep.seeds=[5]"]) == 0
    results = [read_results(path.parent) for path in (tmp_path / "out").glob("*/*/results.json")]
    final = [r for r in results if r["identity"]["study"] is None]
    assert sorted((r["identity"]["method"], r["identity"]["seed"]) for r in final) == [
        ("dropout", 5),
        ("fusion", 5),
    ]
    for r in final:
        best = study(tmp_path, f"{r['identity']['method']}_synthetic").best_params["optimizer.lr"]
        assert f"optimizer.lr={best}" in r["identity"]["overrides"]
        assert r["protocol"]["trials"] == 2
        assert r["protocol"]["chosen"] == ["optimizer.lr"]
    assert len(results) == 2 * 2 + 2
    capsys.readouterr()
    assert report([f"{tmp_path}/out", "--format", "markdown"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("### ") == 1
    assert "left out 4 trials of dropout_synthetic, fusion_synthetic" in printed.err
    assert "unequal" not in printed.err
    assert report([f"{tmp_path}/out", "--store", f"{tmp_path}/fair.csv"]) == 0
    with (tmp_path / "fair.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["method"], row["seed"], row["trials"]) for row in rows} == {
        ("dropout", "5", "2"),
        ("fusion", "5", "2"),
    }
    assert all(row["chosen"].startswith("optimizer.lr=") and row["chosen"] in row["command"] for row in rows)
    capsys.readouterr()
    assert report([f"{tmp_path}/fair.csv", "--format", "markdown"]) == 0
    assert capsys.readouterr().out == printed.out
    assert main([*SMALL, "method=fusion", f"paths.outputs={tmp_path}/out", "seed=5"]) == 0  # without any
    assert report([f"{tmp_path}/out", "--format", "markdown", "--trials"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("### ") == 3
    assert "unequal budgets" in printed.err
    assert "trials=none" in printed.out


REFUSED = {
    "nothing to search": (["optimizer.lr=0.1"], "has nothing to search"),
    "a seed": (["seed=0,1", RATES], "seed is no hyper-parameter"),
    "no trials": ([RATES, "sweep.trials=0"], "sweep.trials=0 is below 1"),
    "no trial at a time": ([RATES, "sweep.parallel=0"], "sweep.parallel=0 is below 1"),
    "sampler": ([RATES, "sweep.sampler=grid"], "sweep.sampler=grid is not known; choose tpe, random, gp"),
    "pruner": ([RATES, "sweep.pruner=mean"], "sweep.pruner=mean is not known"),
    "the test split": ([RATES, "selection=paper"], "a search must not see"),
    "no validation": ([RATES, "trainer.limit_val_batches=0"], "nothing is validated here"),
    "one folder": ([RATES, "paths.run=x"], "leave out paths.run"),
    "unknown key": (["optimizer.lrr=interval(0,1)"], "did you mean optimizer.lr"),
    "out of range": (["optimizer.lr=interval(-1,1)"], "optimizer.lr=-1.0 is below 0"),
    "no whole numbers": (["data.batch_size=interval(8,64)"], "data.batch_size=8.0 is not a whole number"),
    "empty range": (["seed=range(0)"], "seed=range(0) is an empty range"),
    "wrong interval": (["optimizer.lr=interval(1,0.1)"], "cannot be searched"),
    "unreadable database": ([RATES, "sweep.storage=sqlite:///{tmp}/garbage"], "cannot be read"),
    "unreadable journal": ([RATES, "sweep.storage={tmp}/garbage"], "cannot be read"),
    "no such database": ([RATES, "sweep.storage=nosql://here"], "cannot be read"),
}


@pytest.mark.slow
def test_a_plan_is_of_the_study_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(search(tmp_path, RATES, "sweep.trials=1")) == 0
    assert main(search(tmp_path, RATES, "sweep.trials=3", "plan=true")) == 0
    assert "plan: 3 runs, 1 complete, 0 interrupted, 2 new" in capsys.readouterr().out
    for more in ([], ["plan=true"]):
        other = search(tmp_path, "optimizer.lr=interval(0.1,0.2)", *more)
        assert main(other) == 2
        assert "searches another space: optimizer.lr" in capsys.readouterr().err


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_any_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides, words = REFUSED[name]
    (tmp_path / "garbage").write_text("this is no database\n")
    assert main(search(tmp_path, *(text.replace("{tmp}", str(tmp_path)) for text in overrides))) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not list((tmp_path / "out").glob("*/*/config.yaml"))


def test_without_optuna(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "optuna"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(search(tmp_path, RATES)) == 2
    assert "pip install 'mmrobust[optuna]'" in capsys.readouterr().err


def test_one_process_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out" / "studies"
    folder.mkdir(parents=True)
    with locked(folder / "fusion_synthetic.lock"):
        assert main(search(tmp_path, RATES)) == 2
    assert "is being run by another process" in capsys.readouterr().err


@pytest.fixture
def failing(tmp_path: Path) -> list[str]:
    """A space whose one half fails: batches larger than the training data."""
    return search(tmp_path, "data.batch_size=choice(32,256)", "sweep.sampler=random", "sweep.trials=4", RATES)


@pytest.mark.slow
def test_a_failed_trial_is_told_at_the_end_and_run_again(
    failing: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(failing) == 1
        states = [(t.state.name, t.params["data.batch_size"]) for t in study(tmp_path).trials]
        assert {*states} == {("COMPLETE", "32"), ("RUNNING", "256")}
        printed = capfd.readouterr()
        count = states.count(("RUNNING", "256"))
        assert f"{count} runs failed" in printed.err
        assert "fewer than data.batch_size=256" in printed.err
    assert printed.out.count("[0] ") == count


DIVERGING = ["optimizer=sgd", "data.batch_size=8", "sweep.sampler=random"]


@pytest.mark.slow
def test_a_trial_that_diverges_is_one_of_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is told once, counts, and is not run again; other commands cope with it."""
    command = search(tmp_path, "optimizer.lr=choice(1e30,1e-2)", *DIVERGING, "sweep.trials=4")
    assert main([*command, "plan=true"]) == 0  # although the first value is not worth trying
    assert main(command) == 0
    states = {(t.state.name, t.params["optimizer.lr"]) for t in study(tmp_path).trials}
    assert states == {("COMPLETE", "0.01"), ("PRUNED", "1e+30")}
    printed = capfd.readouterr().out
    assert printed.count("  diverged: the loss is no number at step") == 1
    assert printed.count("diverged before: ") == [t[0] for t in trials(tmp_path)].count("PRUNED") - 1
    folder = runs(tmp_path)[1e30]
    assert read_results(folder)["status"] == "diverged"
    assert main(command) == 0
    assert "[0] " not in capfd.readouterr().out
    assert report([f"{tmp_path}/out"]) == 0
    assert "status is 'diverged'" in capfd.readouterr().err
    assert evaluate([f"run={folder}", "verify=true"]) == 2
    assert "has no result to verify: it is diverged" in capfd.readouterr().err


@pytest.mark.slow
def test_a_trial_whose_teacher_diverges_is_one_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where none is left, there is nothing to choose, and it is said what to do."""
    command = ["-m", "sweep=optuna", *SMALL, *DIVERGING, f"paths.outputs={tmp_path}/out", "method=mmanet"]
    command += ["optimizer.lr=choice(1e30,1e31)", "sweep.trials=1"]
    for _ in range(2):
        assert main(command) == 2
        assert "no trial of study mmanet_synthetic is complete; look at its runs" in capsys.readouterr().err
    assert [t.state.name for t in study(tmp_path, "mmanet_synthetic").trials] == ["PRUNED"]


def test_what_a_study_says_that_it_searches(tmp_path: Path) -> None:
    from mmrobust.sweeps.storage import place

    assert place(None, tmp_path / "x.journal") == f"{tmp_path}/x.journal"
    assert place("sqlite:///x.db", tmp_path) == f"sqlite:///{Path.cwd()}/x.db"
    assert place("postgresql://host/db", tmp_path) == "postgresql://host/db"
    assert json.dumps(place("x.journal", tmp_path)) == json.dumps(f"{Path.cwd()}/x.journal")


@pytest.mark.parametrize(
    "params", [{"hydra.job.env_set.X": "y"}, {"method": "evil"}, {"method": "late", "allow": "[y]"}]
)
def test_a_trial_that_somebody_wrote_is_not_run(params: dict[str, str]) -> None:
    from optuna.distributions import BaseDistribution, CategoricalDistribution

    space: dict[str, BaseDistribution] = {"method": CategoricalDistribution(["late", "dropout"])}
    study = optuna.create_study()
    compare(study, space, [], "hash", "here")
    running = optuna.trial.TrialState.RUNNING
    kinds: dict[str, BaseDistribution] = {
        key: CategoricalDistribution([value]) for key, value in params.items()
    }
    study.add_trial(optuna.trial.create_trial(state=running, params=params, distributions=kinds))
    with pytest.raises(UserError, match=r"has a trial, 1, with .* outside the space"):
        compare(study, space, [], "hash", "here")


def test_a_password_goes_to_processes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setenv(STORAGE, "")
    monkeypatch.setattr(optuna.storages, "RDBStorage", opened.append)
    whole = "postgresql://me:secret@host/db"
    assert without_password(whole) == "postgresql://***@host/db"
    for place in ("postgresql://***@host/db", "postgresql://***@other/db", "sqlite:///x"):
        open_storage(place)
    assert opened == [whole, "postgresql://***@other/db", "sqlite:///x"]
