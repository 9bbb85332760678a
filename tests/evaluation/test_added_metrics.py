"""A metric of torchmetrics by YAML: for every combination, over ranks, from a user's folder to the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
import torchmetrics
from omegaconf import OmegaConf
from torch import Tensor

from mmrobust.config.compose import compose_config
from mmrobust.config.identity import config_hash
from mmrobust.data.spec import DataSpec
from mmrobust.errors import UserError
from mmrobust.evaluate import main as evaluate
from mmrobust.evaluation.added_metrics import Added, AddedScores, build_metrics
from mmrobust.evaluation.combinations import CombinationScores, Results, from_predictions
from mmrobust.evaluation.results import read_predictions, read_results
from mmrobust.evaluation.scoring_rules import Brier, NegativeLogLikelihood
from mmrobust.methods.base import Method
from mmrobust.report import main as report
from mmrobust.run import main
from mmrobust.tasks.metric import Metric
from mmrobust.tasks.registry import build_task
from mmrobust.testing import describe_data, make_batch
from tests.made import batches
from tests.runs import tiny

CHOICES = "metric=[auroc,kappa,calibration]"


class Surprise(torchmetrics.Metric):
    """A user's own: the mean squared probability that the true class did not get. Says nothing of its direction."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        self.total += (1 - predicted.gather(1, target[:, None])).pow(self.power).sum()
        self.count += len(target)

    def compute(self) -> Tensor:
        return self.total / self.count


def built(spec: DataSpec, *overrides: str) -> dict[str, Added]:
    return build_metrics(compose_config(list(overrides)).metrics, spec)


# What is measured


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@torch.no_grad()
def test_every_combination_on_the_samples_that_have_it(build: Callable[..., Method], task: str) -> None:
    spec = replace(describe_data(num_modalities=2, task=task), ignore_index=1)  # in classification, too
    method, metrics = build(spec), built(spec, CHOICES)
    data = list(batches(method))
    scores = CombinationScores(
        method.task, method.modalities, method.combinations(), keep_predictions=True, metrics=metrics
    )
    for batch in data:
        scores.update(method, batch)
    results = scores.finish()
    assert list(results.added) == ["auroc", "kappa", "calibration_error", "brier", "nll"]
    for name, columns in {"m1": [0], "m2": [1], "m1+m2": [0, 1]}.items():
        predicted, target = [], []
        for batch in data:
            mask = torch.zeros_like(batch.available)
            mask[:, columns] = True
            has = (batch.available | ~mask).all(1)
            logits = method(batch.with_available(mask & batch.available | ~has[:, None])).logits[has]
            valid = batch.target[has] != 1
            predicted.append(logits.softmax(1).movedim(1, -1)[valid])
            target.append(batch.target[has][valid])
        pair = torch.cat(predicted), torch.cat(target)
        row = results.combinations[name]
        assert row is not None
        for metric, added in metrics.items():
            expected = type(added.empty)(**_arguments(added.empty))
            expected.update(*pair)
            assert row["metrics"][metric] == pytest.approx(float(expected.compute()), abs=1e-5), metric
        assert results.aggregates["average"]["nll"] is not None
    if task == "classification":
        assert results.predictions is not None
        again = from_predictions(results.predictions, method.task, metrics)
        for row, expected in zip(_values(again), _values(results), strict=True):
            assert row == pytest.approx(expected, abs=1e-6)  # the samples are in another order
    for batch in data:  # a pass starts afresh
        scores.update(method, batch)
    assert scores.finish().combinations == results.combinations


def _values(results: Results) -> list[dict[str, float | None]]:
    rows = [row["metrics"] for row in results.combinations.values() if row]
    return [*rows, *results.aggregates.values()]


def _arguments(metric: torchmetrics.Metric) -> dict[str, Any]:
    keys = {"num_classes": 4, "average": "macro", "thresholds": None, "n_bins": 15, "norm": "l1"}
    names = type(metric).__init__.__annotations__
    return {key: value for key, value in keys.items() if key in names}


@torch.no_grad()
def test_as_available_sees_every_sample_once(build: Callable[..., Method]) -> None:
    spec = describe_data(num_modalities=3)
    method, metrics = build(spec), built(spec, "metric=auroc")
    scores = CombinationScores(method.task, method.modalities, method.combinations(), metrics=metrics)
    data = list(batches(method))
    expected = torchmetrics.AUROC(task="multiclass", num_classes=4)
    for batch in data:
        scores.update(method, batch)
        expected.update(method(batch).logits.softmax(1), batch.target)
    found = scores.finish().aggregates["available"]["auroc"]
    assert found == pytest.approx(float(expected.compute()), abs=1e-6)


def test_a_combination_that_no_sample_has_is_none(build: Callable[..., Method]) -> None:
    spec = describe_data(num_modalities=2)
    method = build(spec)
    scores = CombinationScores(
        method.task, method.modalities, method.combinations(), metrics=built(spec, "metric=auroc")
    )
    batch = make_batch(spec)
    with torch.no_grad():
        scores.update(method, batch.with_available(torch.tensor([[True, False]] * len(batch))))
    rows = scores.finish().combinations
    assert rows["m2"] is not None
    assert rows["m2"]["metrics"]["auroc"] is None
    assert rows["m1"] is not None
    assert rows["m1"]["metrics"]["auroc"] is not None


# How it is said


def test_what_is_null_follows_the_dataset() -> None:
    found = built(describe_data(num_classes=7), CHOICES)
    assert type(found["auroc"].empty).__name__ == "MulticlassAUROC"
    assert {found[name].empty.num_classes for name in ("auroc", "kappa")} == {7}
    assert {name: added.metric.direction for name, added in found.items()} == {
        "auroc": "max",
        "kappa": "max",
        "calibration_error": "min",
        "brier": "min",
        "nll": "min",
    }
    changed = built(
        describe_data(), "metric=auroc", "metrics.auroc.direction=min", "metrics.auroc.percent=true"
    )
    assert changed["auroc"].metric == Metric("auroc", "min", True, "AUROC")


@pytest.mark.parametrize(
    ("node", "told"),
    [
        ("{_target_: torchmetrics.AUROC, task: many}", "metrics.mine: torchmetrics.AUROC cannot be built"),
        ("{_target_: torchmetrics.AUROC, bins: 3, task: binary}", "do not fit|cannot be built"),
        ("{_target_: torch.nn.ReLU}", "here may stand a Metric"),
        ("{_target_: torchmetrics.MeanMetric}", "does not say which values of MeanMetric are good"),
        ("{_target_: torchmetrics.MeanMetric, direction: up}", "set metrics.mine.direction=max or min"),
        ("{_target_: os.system}", "outside the packages that may be used"),
    ],
)
def test_what_cannot_be_is_refused(node: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        built(describe_data(), f"+metrics.mine={node}")


def test_a_metric_of_ours_keeps_its_name() -> None:
    with pytest.raises(UserError, match="a metric of ours is called accuracy"):
        built(describe_data(), "+metrics.accuracy={_target_: torchmetrics.Accuracy, task: binary}")


def test_several_numbers_are_refused() -> None:
    spec = describe_data()
    scores = AddedScores(built(spec, "metric=auroc", "metrics.auroc.average=none"), 1)
    scores.update(0, torch.rand(9, 4).softmax(1), torch.arange(9) % 4)
    with pytest.raises(UserError, match=r"metrics.auroc gives \(4,\), where one number is expected"):
        scores.compute([9])


def test_the_hash_changes_only_with_a_metric() -> None:
    plain, added = compose_config([]), compose_config(["metric=auroc"])
    assert config_hash(plain) != config_hash(added)
    OmegaConf.set_struct(plain, False)
    del plain["metrics"]
    assert config_hash(plain) == config_hash(compose_config([]))


# Over ranks


def _count(rank: int, folder: Path) -> None:
    """Rank 1 has no sample of the first row, nobody one of the last."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    scores = AddedScores(built(describe_data(), CHOICES), 3)
    for row in (0, 1) if rank == 0 else (1,):
        scores.update(row, *(x[rank::2] for x in _pairs(row)))
    (folder / f"{rank}.json").write_text(json.dumps(scores.compute([20, 40, 0])))
    torch.distributed.destroy_process_group()


def _pairs(row: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(row)
    return torch.randn(40, 4, generator=generator).softmax(1), torch.arange(40) % 4


@pytest.mark.slow
def test_ranks_add_up_and_one_may_lack_a_combination(tmp_path: Path) -> None:
    start = torch.multiprocessing.start_processes  # type: ignore[attr-defined]
    start(_count, (tmp_path,), nprocs=2, start_method="fork")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    one = AddedScores(built(describe_data(), CHOICES), 3)
    one.update(0, *(x[::2] for x in _pairs(0)))
    one.update(1, *_pairs(1))
    for found, expected in zip(first, one.compute([20, 40, 0]), strict=True):
        assert found == pytest.approx(expected, abs=1e-6)
    assert set(first[2].values()) == {None}


# From a folder of the user's to the report


def test_a_users_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "conf/metric").mkdir(parents=True)
    (tmp_path / "conf/metric/surprise.yaml").write_text(
        "# @package metrics\nsurprise:\n  _target_: tests.evaluation.test_added_metrics.Surprise\n"
        "  power: 2.0\n  direction: min\n"
    )
    keys = ["--config-dir", str(tmp_path / "conf"), "metric=surprise", "allow=[tests]", "method=dropout"]
    assert main([*keys, *tiny("data.num_test=32"), f"paths.run={tmp_path}/run"]) == 0
    assert "surprise ↓" in capsys.readouterr().out
    results = read_results(tmp_path / "run")
    assert results["metrics"] == {"surprise": {"direction": "min", "percent": False, "label": "surprise"}}
    arrays = read_predictions(tmp_path / "run/predictions.npz")
    for k, name in enumerate(arrays["combinations"]):
        probability = torch.from_numpy(arrays["logits"][:, k]).softmax(1).numpy()
        expected = np.mean((1 - probability[np.arange(32), arrays["target"]]) ** 2)
        assert results["combinations"][name]["metrics"]["surprise"] == pytest.approx(expected, abs=1e-5)
    assert "val/average/surprise" in (tmp_path / "run/metrics.csv").read_text()
    assert evaluate([f"run={tmp_path}/run", "verify=true", "allow=[tests]"]) == 0
    assert report([str(tmp_path), "--metric", "surprise", "--format", "markdown"]) == 0
    shown = capsys.readouterr().out
    assert "surprise (lower is better)" in shown
    worst = max(row["metrics"]["surprise"] for row in results["combinations"].values())
    assert f"{worst:.3f}" in shown


def test_one_of_maps_is_not_recomputed(build: Callable[..., Method]) -> None:
    spec = describe_data(task="segmentation")
    method = build(spec)
    scores = CombinationScores(
        method.task,
        method.modalities,
        method.combinations(),
        keep_predictions=True,
        metrics=built(spec, "metric=kappa"),
    )
    with torch.no_grad():
        scores.update(method, make_batch(spec))
    results = scores.finish()
    assert results.predictions is not None
    again = from_predictions(results.predictions, build_task(spec), built(spec, "metric=kappa"))
    first, second = results.combinations["m1"], again.combinations["m1"]
    assert first is not None
    assert second is not None
    assert first["metrics"]["kappa"] is not None
    assert second["metrics"] == {k: v for k, v in first["metrics"].items() if k != "kappa"}


# Scoring rules


def test_scoring_rules_by_hand() -> None:
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    brier, nll = Brier(), NegativeLogLikelihood()
    for metric in (brier, nll):
        metric.update(probabilities[:1], torch.tensor([0]))
        metric.update(probabilities[1:], torch.tensor([1]))
    assert float(brier.compute()) == pytest.approx((0.25 + 2 * 0.0625 + 0) / 2)
    assert float(nll.compute()) == pytest.approx(np.log(2) / 2)
    several = torch.tensor([[0.5, 0.25]])
    brier.reset()
    nll.reset()
    brier.update(several, torch.tensor([[1, 0]]))
    nll.update(several, torch.tensor([[1, 0]]))
    assert float(brier.compute()) == pytest.approx(0.25 + 0.0625)
    assert float(nll.compute()) == pytest.approx(-np.log(0.5) - np.log(0.75))
