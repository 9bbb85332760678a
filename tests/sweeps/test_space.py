"""What a sweep's command line lists: its jobs, what it declares, what a search may choose."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrobust.errors import UserError
from mmrobust.sweeps.space import distributions, firsts, grid, of_jobs, with_declared


def test_jobs_have_no_overrides_of_the_sweep_itself() -> None:
    given = ["sweep=grid", "sweep.space.x=1", "plan=true", "hydra.verbose=true", "seed=0,1", "method=late"]
    assert grid(given) == [["seed=0", "method=late"], ["seed=1", "method=late"]]


def test_an_interval_is_no_list() -> None:
    with pytest.raises(UserError, match=r"optimizer\.lr=interval\(0\.1,0\.2\).*add sweep=optuna"):
        grid(["optimizer.lr=interval(0.1,0.2)", "seed=0,1"])


def test_an_ablation_declares_its_runs() -> None:
    """Its file lists values that the command line may replace."""
    given = with_declared(["experiment=ablation_dmrnet", "seed=7"], None)
    assert given == [
        "experiment=ablation_dmrnet",
        "seed=7",
        "ablation/dmrnet=full,no_kl,no_hard,deterministic",
    ]
    assert len(grid(given)) == 4


def test_hydras_own_declaration(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      optimizer.lr: 0.1,0.2\n      seed: range(2)\n"
    )
    given = with_declared(["experiment=mine"], str(tmp_path))
    assert [job[1:] for job in grid(given)] == [
        [f"optimizer.lr={lr}", f"seed={seed}"] for lr in (0.1, 0.2) for seed in (0, 1)
    ]


def test_a_declared_glob_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nsweep:\n  space:\n    optimizer: glob(ada*)\n"
    )
    assert with_declared(["experiment=mine"], str(tmp_path)) == ["experiment=mine", "optimizer=adam,adamw"]


def test_what_is_wrong_declares_nothing() -> None:
    assert with_declared(["sweep.trails=3"], None) == ["sweep.trails=3"]


def test_first_values() -> None:
    given = ["a=1,2", "b=interval(0.5,2)", "+c=range(3,9)", "d=[1,2]", "e=range(3,1)", "sweep=optuna"]
    assert firsts(given) == ["a=1", "b=0.5", "+c=3", "d=[1,2]", "e=range(3,1)"]  # the last is told by checks


@pytest.mark.parametrize(
    ("text", "kind", "low", "high", "more"),
    [
        ("x=interval(1,5)", "FloatDistribution", 1.0, 5.0, {"log": False, "step": None}),
        ("x=tag(log,interval(1e-4,1e-2))", "FloatDistribution", 1e-4, 1e-2, {"log": True}),
        ("x=int(interval(1,5))", "IntDistribution", 1, 5, {"log": False, "step": 1}),
        ("x=range(1,10,2)", "IntDistribution", 1, 9, {"step": 2}),
        ("x=shuffle(range(0,3))", "IntDistribution", 0, 2, {"step": 1}),
        ("x=tag(log,range(1,65))", "IntDistribution", 1, 64, {"log": True}),
        ("x=range(0.0,1.0,0.25)", "FloatDistribution", 0.0, 0.75, {"step": 0.25}),
    ],
)
def test_numbers_to_search(text: str, kind: str, low: float, high: float, more: dict[str, object]) -> None:
    pytest.importorskip("optuna")
    (found,) = distributions(of_jobs([text, "y=3"])).values()
    assert type(found).__name__ == kind
    assert (found.low, found.high) == (low, high)  # type: ignore[attr-defined]
    assert {key: getattr(found, key) for key in more} == more


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("fusion=sum,concat", ("sum", "concat")),
        ("x=true,null,'a b',[1,2]", ("True", "null", "'a b'", "[1,2]")),
    ],
)
def test_choices_to_search(text: str, choices: tuple[str, ...]) -> None:
    pytest.importorskip("optuna")
    (found,) = distributions(of_jobs([text])).values()
    assert found.choices == choices  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["x=interval(2,1)", "x=tag(log,interval(0,1))", "x=tag(log,range(1,9,2))"])
def test_what_cannot_be_searched(text: str) -> None:
    pytest.importorskip("optuna")
    with pytest.raises(UserError, match="cannot be searched"):
        distributions(of_jobs([text]))
