"""Four toy methods, shaped like the hardest real ones, fit the base without changing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.evaluation.results import read_results
from mmrobust.run import main
from mmrobust.testing import check_dataset, check_method, describe_data
from mmrobust.training.checkpoints import load_checkpoint
from mmrobust.training.lifecycle import execute
from mmrobust.training.session import open_trained
from tests.toys import HallucinationShaped, TeacherShaped, weak_names

CONF = Path(__file__).parent / "conf"
TOYS = ["teacher_shaped", "hallucination_shaped", "alternating_shaped", "stagewise_shaped"]
SMALL = [
    "data=squares",
    "allow=[tests]",
    "encoder.width=8",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
]


def run(tmp_path: Path, *overrides: str) -> Path:
    given = [*SMALL, f"paths.outputs={tmp_path}", *overrides]
    return execute(compose_config(given, str(CONF)), given, config_dir=str(CONF))


@pytest.mark.parametrize("num_modalities", [2, 3])
@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("toy", TOYS)
def test_conformance(toy: str, task: str, num_modalities: int) -> None:
    config = compose_config([f"method={toy}", *SMALL], str(CONF))
    check_method(
        lambda spec: construct(config.method, spec=spec),
        describe_data(num_modalities=num_modalities, task=task),
    )


@pytest.mark.parametrize("num_modalities", [2, 3])
def test_toy_segmentation_is_a_dataset(num_modalities: int) -> None:
    check_dataset(
        construct(compose_config([*SMALL, f"data.num_modalities={num_modalities}"], str(CONF)).data)
    )


@pytest.mark.parametrize("num_modalities", [2, 3])
@pytest.mark.parametrize("toy", ["hallucination_shaped", "alternating_shaped", "stagewise_shaped"])
def test_whole_run_on_segmentation(toy: str, num_modalities: int, tmp_path: Path) -> None:
    results = read_results(run(tmp_path, f"method={toy}", f"data.num_modalities={num_modalities}"))
    assert len(results["combinations"]) == 2**num_modalities - 1
    assert results["primary"]["metric"] == "miou"
    served = [name for name, row in results["combinations"].items() if row]
    if toy == "hallucination_shaped":  # never the privileged one, which is not there at inference
        assert served == [name for name in results["combinations"] if f"m{num_modalities}" not in name]
        assert results["aggregates"]["full"]["miou"] is None
    else:
        assert len(served) == 2**num_modalities - 1


def test_hallucination_ignores_the_privileged_modality() -> None:
    spec = describe_data(num_modalities=3)
    config = compose_config(["method=hallucination_shaped", *SMALL], str(CONF))
    method: HallucinationShaped = construct(config.method, spec=spec)
    assert [len(c) for c in method.combinations()] == [1, 1, 2]


@pytest.mark.slow
def test_teacher_is_trained_first_and_shared(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = run(tmp_path, "method=teacher_shaped")
    assert "training the teacher (fusion)" in capfd.readouterr().out
    teacher = read_results(first)["identity"]["teacher"]
    assert Path(teacher["run"]).parent == tmp_path / "teachers"
    assert read_results(teacher["run"])["identity"]["method"] == "fusion"
    second = run(tmp_path, "method=teacher_shaped", "method.distillation_weight=0.5")
    assert "training the teacher" not in capfd.readouterr().out
    assert read_results(second)["identity"]["teacher"] == teacher
    assert not any("teacher" in key for key in load_checkpoint(first / "checkpoints/best.ckpt")["state_dict"])
    method = open_trained(first).method
    assert isinstance(method, TeacherShaped)
    assert len(weak_names(method)) == 1  # mined in validation, restored from the checkpoint
    assert main([*_args(tmp_path), "method=teacher_shaped", "method.teacher.run=nowhere"]) == 2
    assert "method.teacher.run=nowhere is not the folder of a complete run" in capfd.readouterr().err


def _args(tmp_path: Path) -> list[str]:
    return ["--config-dir", str(CONF), *SMALL, f"paths.outputs={tmp_path}"]
