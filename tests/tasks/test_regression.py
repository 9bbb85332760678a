"""Regression: units, loss, metrics against torchmetrics and by hand, the best possible error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.regression import (
    concordance_corrcoef,
    mean_absolute_error,
    mean_squared_error,
    pearson_corrcoef,
)

from mmrobust.tasks.regression import Regression
from mmrobust.testing import describe_data

SPEC = replace(
    describe_data(task="regression", num_classes=2), target_mean=(10.0, -1.0), target_std=(4.0, 0.5)
)


@pytest.fixture
def data() -> tuple[Tensor, Tensor, Tensor]:
    """Logits (K, B, D), targets (B, D) that they know something of, and who counts (K, B)."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(300, 2, generator=generator) * torch.tensor([4.0, 0.5]) + torch.tensor([10.0, -1.0])
    truth = (target - torch.tensor([10.0, -1.0])) / torch.tensor([4.0, 0.5])
    logits = (
        0.7 * truth + torch.randn(3, 300, 2, generator=generator) * torch.tensor([0.1, 0.5, 2])[:, None, None]
    )
    return logits, target, torch.rand(3, 300, generator=generator) < 0.7


def measured(logits: Tensor, target: Tensor, counted: Tensor) -> dict[str, Tensor]:
    task = Regression(SPEC)
    return task.measure(task.count(logits, task.predict(logits, target, None), target, counted))


def test_metrics_are_those_of_torchmetrics(data: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, counted = data
    found, predicted = measured(*data), Regression(SPEC).predict(logits, target, None)
    assert tuple(found) == Regression.metrics
    for k in range(3):
        p, t = predicted[k, counted[k]], target[counted[k]]
        expected = {
            "mae": mean_absolute_error(p, t, num_outputs=2),
            "rmse": mean_squared_error(p, t, squared=False, num_outputs=2),
            "pearson": pearson_corrcoef(p, t),
            "ccc": concordance_corrcoef(p, t) * 1.0,
        }
        for name, value in expected.items():
            # torchmetrics divides the variances of the concordance by n - 1
            tolerance = 1e-2 if name == "ccc" else 1e-4
            assert found[name][k].item() == pytest.approx(value.mean().item(), rel=tolerance), name


def test_by_hand() -> None:
    """Predictions 1, 2, 3 for 1, 3, 5: errors 0, 1, 2; perfectly correlated, but half as steep and 1 too low."""
    task = Regression(describe_data(task="regression", num_classes=1))
    predicted, target = torch.tensor([[[1.0], [2], [3]]]), torch.tensor([[1.0], [3], [5]])
    found = task.measure(task.count(predicted, predicted, target, torch.ones(1, 3).bool()))
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {"mae": 1.0, "rmse": (5 / 3) ** 0.5, "pearson": 1.0, "ccc": 2 * (4 / 3) / (2 / 3 + 8 / 3 + 1)}
    )


def test_counts_add_up(data: tuple[Tensor, Tensor, Tensor]) -> None:
    task, (logits, target, counted) = Regression(SPEC), data
    predicted = task.predict(logits, target, None)
    sums = task.zeros(3)["sums"]
    for rows in (slice(0, 100), slice(100, 300)):
        sums += task.count(logits[:, rows], predicted[:, rows], target[rows], counted[:, rows])["sums"]
    for name, value in task.measure({"sums": sums}).items():
        torch.testing.assert_close(value, measured(*data)[name])


def test_what_is_not_counted_does_not_matter(data: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, counted = data
    other = torch.where(counted[..., None], logits, torch.nan)
    for name, value in measured(other, target, counted).items():
        assert torch.equal(value, measured(*data)[name]), name


@pytest.mark.parametrize("constant", [0.0, 1e6 / 3])
def test_of_what_does_not_vary_there_is_no_correlation(constant: float) -> None:
    task = Regression(describe_data(task="regression", num_classes=1))
    predicted, target = torch.full((1, 50, 1), constant), torch.randn(50, 1)
    found = task.measure(task.count(predicted, predicted, target, torch.ones(1, 50).bool()))
    assert found["pearson"].isnan()
    assert found["mae"].isfinite()
    nobody = task.measure(task.count(predicted, predicted, target, torch.zeros(1, 50).bool()))
    assert all(value.isnan() for value in nobody.values())


def test_logits_have_no_unit() -> None:
    task = Regression(SPEC)
    assert task.predict(torch.zeros(1, 1, 2), torch.zeros(1, 2), None).tolist() == [[[10.0, -1.0]]]
    target = torch.tensor([[14.0, -1.5]])
    assert task.loss(torch.tensor([[1.0, -1.0]]), target).tolist() == [0.0]
    assert task.loss(torch.zeros(1, 2), target).tolist() == [1.0]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (torch.zeros(2, dtype=torch.int64), "not float32"),
        (torch.zeros(3), "shape"),
        (torch.full((2,), torch.nan), "not finite"),
    ],
)
def test_targets_are_checked(target: Tensor, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        Regression(SPEC).check_target(target)


def test_the_example_is_one() -> None:
    example = Regression(SPEC).example(500, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(example.mean(0), [10, -1], atol=0.6)
    Regression(SPEC).check_target(example[0])
