"""Teachers: found unfit before training, made once for a whole sweep, asked and never changed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from mmrobust.config.compose import compose_config
from mmrobust.data.spec import DataSpec
from mmrobust.errors import UserError
from mmrobust.evaluation.results import read_results
from mmrobust.methods.teacher import Teacher
from mmrobust.run import main
from mmrobust.testing import describe_data, make_batch
from mmrobust.training.checkpoints import load_checkpoint
from mmrobust.training.session import open_trained
from mmrobust.training.teacher_run import prepare_teacher
from tests.runs import tiny

SMALL = tiny("data.kinds=[vector]", "data.num_train=32")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a teacher of m1 and m2, eight classes, 8 channels each."""
    folder = tmp_path_factory.mktemp("teacher")
    assert main([*SMALL, "method=fusion", f"paths.run={folder}"]) == 0
    return folder


def spec_of(run: Path) -> DataSpec:
    return DataSpec.from_dict(load_checkpoint(run / "checkpoints/best.ckpt")["spec"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.num_modalities=3"],
            r"modalities m1 \(vector 64\), m2 \(vector 64\) instead of m1 .*, m2 .*, m3 ",
        ),
        (
            ["data.num_modalities=1", "method=distillation"],
            r"modalities m1 .*, m2 .* instead of m1 \(vector 64\)\.",
        ),
        (
            ["data.kinds=[vector,sequence]"],
            r"m2 \(vector 64\) instead of m1 \(vector 64\), m2 \(sequence 1x64\)",
        ),
        (["data.num_classes=4"], "does not fit the data: classes 8 instead of 4"),
        (["data.size=32"], r"m1 \(vector 64\), .* instead of m1 \(vector 128\)"),
    ],
)
def test_a_teacher_of_other_data(
    overrides: list[str], message: str, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said once, with what to do, before the first step."""
    keys = [*SMALL, "method=mmanet", *overrides, f"method.teacher.run={teacher}", f"paths.run={tmp_path}/run"]
    assert main(keys) == 2
    error = capsys.readouterr().err
    assert error.count("does not fit the data") == 1
    assert "or leave it out to have one trained" in error
    assert re.search(message, error)
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_teacher_of_another_task(teacher: Path) -> None:
    with pytest.raises(UserError, match="task classification instead of segmentation; classes 8 instead of"):
        Teacher(str(teacher), describe_data(kinds=("image",), task="segmentation"))


def test_a_teacher_of_modalities_with_other_names(teacher: Path) -> None:
    """Seen before torch is imported, and before the data is read."""
    config = compose_config(["method=mmanet", "data=avmnist", f"method.teacher.run={teacher}"])
    with pytest.raises(
        UserError, match=r"knows the modalities m1, m2, data=avmnist has others \(image, audio\)"
    ):
        prepare_teacher(config)


def test_no_run_of_a_teacher(teacher: Path, tmp_path: Path) -> None:
    """A folder that is not there, one of something else, a run that has not ended."""
    (tmp_path / "empty").mkdir()
    shutil.copytree(teacher, tmp_path / "interrupted")
    (tmp_path / "interrupted/results.json").unlink()
    for name in ("nowhere", "empty", "interrupted"):
        config = compose_config([*SMALL, "method=mmanet", f"method.teacher.run={tmp_path / name}"])
        with pytest.raises(UserError, match=f"{name} is not the folder of a complete run"):
            prepare_teacher(config)


def test_a_given_teacher_is_taken(teacher: Path) -> None:
    config = compose_config([*SMALL, "method=mmanet", f"method.teacher.run={teacher}"])
    assert prepare_teacher(config) == teacher


def test_a_teacher_without_fused_feature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Late fusion can teach its logits, but no features."""
    assert main([*SMALL, "method=late", f"paths.run={tmp_path}/late"]) == 0
    given = [*SMALL, f"method.teacher.run={tmp_path}/late"]
    for method in (["method=mmanet"], ["method=distillation", "method.kind=sp"]):
        assert main([*given, *method, f"paths.run={tmp_path}/run"]) == 2
        assert "(LateFusion) has no fused feature to distil; give one that" in capsys.readouterr().err
    assert not (tmp_path / "run/checkpoints").exists()
    assert main([*given, "method=distillation", "method.kind=logits", f"paths.run={tmp_path}/logits"]) == 0


@pytest.mark.parametrize(("kind", "status"), [("fitnet", 2), ("at", 2), ("sp", 0)])
def test_a_teacher_of_another_width(
    kind: str, status: int, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only relations between samples do not ask for it."""
    keys = [*SMALL, "method=distillation", f"method.kind={kind}", "encoder.width=4"]
    assert main([*keys, f"method.teacher.run={teacher}", f"paths.run={tmp_path}"]) == status
    if status:
        assert "has 16 channels, the student's 8" in capsys.readouterr().err


def test_asking_changes_nothing(teacher: Path) -> None:
    """Neither the teacher nor the random numbers of the step."""
    trained = open_trained(teacher).method
    batch = make_batch(trained.spec)
    with torch.no_grad():
        expected = trained(batch)
    asked = Teacher(str(teacher), spec_of(teacher))
    before = torch.get_rng_state()
    found = asked(batch), asked(batch)  # loaded with the first
    assert torch.equal(before, torch.get_rng_state())
    for output in found:
        assert torch.equal(output.logits, expected.logits)
        assert not output.logits.requires_grad


@pytest.mark.parametrize("method", ["mmanet", "distillation"])
def test_a_student_is_used_without_its_teacher(method: str, teacher: Path, tmp_path: Path) -> None:
    """No weight of the teacher is in its checkpoint, and it loads when the teacher is gone."""
    run, copy = tmp_path / "run", tmp_path / "teacher"
    shutil.copytree(teacher, copy)
    keys = [*SMALL, f"method={method}", f"method.teacher.run={copy}", f"paths.run={run}"]
    assert main([*keys, *(["method.warm_up=1", "method.mining_epochs=1"] if method == "mmanet" else [])]) == 0
    recorded = read_results(run)["identity"]["teacher"]
    assert recorded["run"] == str(copy)
    shutil.rmtree(copy)
    assert not any("teacher" in name for name in load_checkpoint(run / "checkpoints/best.ckpt")["state_dict"])
    student = open_trained(run).method
    assert student(make_batch(student.spec)).logits.isfinite().all()


def test_a_quick_look_has_a_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of as many batches; no checkpoint is promised of the run itself, which has none."""
    keys = [*SMALL, "method=mmanet", "debug=fast", f"paths.outputs={tmp_path}"]
    assert main(keys) == 0
    told = capsys.readouterr().out
    (made,) = (tmp_path / "teachers").glob("*/checkpoints/best.ckpt")
    found = re.findall(r"checkpoint +(\S+)", told)
    assert all(path == str(made) for path in found), found


@pytest.mark.slow
def test_a_sweep_shares_one_teacher(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Trained by the first of two jobs at a time; the second waits for it, a later one finds it."""
    sweep = [*SMALL, "data.num_train=128", "method=distillation", f"paths.outputs={tmp_path}"]
    kinds = ["method.kind=logits,soft_targets", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert main(["-m", *sweep, *kinds]) == 0
    assert main([*sweep, "method.weight=2"]) == 0
    assert capfd.readouterr().out.count("training the teacher (fusion)") == 1
    (made,) = (path.parent for path in (tmp_path / "teachers").glob("*/results.json"))
    assert read_results(made)["identity"]["method"] == "fusion"
    runs = [read_results(path) for path in tmp_path.glob("distillation_synthetic/*/results.json")]
    assert len(runs) == 3
    assert {run["identity"]["teacher"]["run"] for run in runs} == {str(made)}
    assert len({run["identity"]["teacher"]["sha256"] for run in runs}) == 1
