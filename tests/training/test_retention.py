"""Which checkpoints stay when a run is complete, and who says that there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrobust.evaluate import main as evaluate
from mmrobust.evaluation.results import read_results
from mmrobust.run import main
from tests.runs import fault, in_a_process, tiny

SMALL = tiny(
    "data.num_val=32", "data.num_test=32", "data.batch_size=32", "trainer.max_epochs=2", "allow=[tests]"
)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("keep", "selection", "stays"),
    [
        (None, "mean", ["best.ckpt"]),
        ("best", "last", ["last.ckpt"]),
        ("last", "mean", ["last.ckpt"]),
        ("all", "mean", ["best.ckpt", "last.ckpt"]),
        ("none", "mean", []),
    ],
)
def test_what_stays(
    keep: str | None, selection: str, stays: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The best one is the one that was tested, whichever that is; what is gone is said, never replaced."""
    argv = [*SMALL, "method=fusion", f"selection={selection}", f"paths.run={tmp_path}"]
    assert main([*argv, *([f"keep={keep}"] if keep else [])]) == 0
    assert left(tmp_path) == stays
    printed = capsys.readouterr().out
    assert [line.split("/")[-1] for line in printed.splitlines() if line.startswith("checkpoint")] == (
        ["last.ckpt"] if keep == "last" else stays[:1]
    )
    there = keep not in ("last", "none")
    assert evaluate([f"run={tmp_path}"]) == (0 if there else 2)
    if there:
        (again,) = (tmp_path / "evaluations").glob("*")
        assert read_results(again)["combinations"] == read_results(tmp_path)["combinations"]
    else:
        error = capsys.readouterr().err
        assert f"has no best checkpoint: it is complete and was made with keep={keep}" in error
        assert ("Take checkpoint=last" in error) == (keep == "last")
        assert evaluate([f"run={tmp_path}", "verify=true"]) == 0
        assert evaluate([f"run={tmp_path}", "checkpoint=last"]) == (0 if keep == "last" else 2)


def test_the_choice_does_not_make_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["-m", *SMALL, "method=fusion", f"paths.outputs={tmp_path}", "trainer.max_epochs=1"]
    assert main([*argv, "keep=all"]) == 0
    (folder,) = (path.parent for path in tmp_path.glob("*/*/results.json"))
    assert len(left(folder)) == 2
    assert main([*argv, "keep=none"]) == 0
    assert f"complete: {folder}" in capsys.readouterr().out
    assert left(folder) == []


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_it_needs(tmp_path: Path) -> None:
    """Until it is complete; then what it was told to keep."""
    small = [*SMALL, "method=fusion", "trainer.max_epochs=3", "keep=none"]
    assert main([*small, f"paths.run={tmp_path}/whole"]) == 0
    argv = [*small, f"paths.run={tmp_path}/run", fault("batch", 4, 9, tmp_path)]
    assert in_a_process(argv, tmp_path / "output.txt") == -9
    assert left(tmp_path / "run") == ["best.ckpt", "last.ckpt"]
    assert in_a_process([f"resume={tmp_path}/run", "allow=[tests]"], tmp_path / "output.txt") == 0
    assert left(tmp_path / "run") == []
    one, two = (read_results(tmp_path / name) for name in ("whole", "run"))
    for key in ("combinations", "aggregates", "selection"):
        assert one[key] == two[key]


@pytest.mark.slow
def test_a_teacher_keeps_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*SMALL, "method=distillation", "keep=none", "trainer.max_epochs=1", f"paths.outputs={tmp_path}"]
    assert main(argv) == 0
    (teacher,) = (tmp_path / "teachers").iterdir()
    assert left(teacher) == ["best.ckpt"]
    (student,) = (path.parent for path in tmp_path.glob("distillation*/*/results.json"))
    assert left(student) == []
    assert evaluate([f"run={student}"]) == 2
    capsys.readouterr()
    assert main([*argv, f"method.teacher.run={student}"]) == 2  # which has nothing to teach with
    assert "has no best checkpoint" in capsys.readouterr().err
