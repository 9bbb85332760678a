"""Several labels: loss, F1 and average precision against torchmetrics and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multilabel_average_precision, multilabel_f1_score

from mmrobust.tasks.families import average_precision, ranking_metrics
from mmrobust.tasks.multilabel import Multilabel
from mmrobust.testing import describe_data

C = 5
TASK = Multilabel(describe_data(task="multilabel", num_classes=C))


@pytest.fixture
def data() -> tuple[Tensor, Tensor, Tensor]:
    """Logits (K, B, C), labels (B, C), and who counts (K, B)."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(2, (200, C), generator=generator)
    logits = torch.randn(3, 200, C, generator=generator) + 2.0 * target - 1
    return logits, target, torch.rand(3, 200, generator=generator) < 0.7


def test_macro_f1(data: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, counted = data
    found = TASK.measure(TASK.count(logits, TASK.predict(logits, target, None), target, counted))["macro_f1"]
    for k in range(3):
        expected = multilabel_f1_score(logits[k, counted[k]].sigmoid(), target[counted[k]], num_labels=C)
        assert found[k].item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_label_that_does_not_occur_does_not_count() -> None:
    target = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]])
    logits = torch.tensor([[[1.0, -1, -1, -1, -1], [1, -1, -1, 1, -1]]])
    counts = TASK.count(logits, TASK.predict(logits, target, None), target, torch.ones(1, 2).bool())
    assert counts["hits"][0].tolist() == [[2, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert TASK.measure(counts)["macro_f1"].tolist() == [pytest.approx((1 + 0 + 0) / 3)]
    assert TASK.measure(TASK.zeros(1))["macro_f1"].isnan().all()


def test_mean_average_precision(data: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, _ = data
    rounded = (2 * logits[0]).round() / 2  # with ties
    for scores in (logits[0], rounded):
        expected = multilabel_average_precision(scores.sigmoid(), target, num_labels=C)
        found = ranking_metrics(scores.numpy(), target.numpy(), None)["map"]
        assert found == pytest.approx(expected.item(), abs=1e-6)


def test_average_precision_by_hand() -> None:
    """Ranked right, wrong, right: 1/2 at precision 1, 1/2 at precision 2/3. All tied: the share of positives."""
    positive = np.array([True, True, False])
    assert average_precision(np.array([0.9, 0.1, 0.5]), positive) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.zeros(3), positive) == pytest.approx(2 / 3)


def test_map_without_labels_is_none() -> None:
    assert ranking_metrics(np.zeros((4, 2)), np.zeros((4, 2), int), None) == {"map": None}
    one = ranking_metrics(np.eye(4)[:, :2], np.eye(4, dtype=int)[:, :2] * [1, 0], None)
    assert one == {"map": 1.0}


def test_the_loss_is_that_of_every_sample(data: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, _ = data
    loss = TASK.loss(logits[0], target)
    assert loss.shape == (200,)
    expected = F.binary_cross_entropy_with_logits(logits[0], target.float())
    torch.testing.assert_close(loss.mean(), expected)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (torch.zeros(C), "not int64"),
        (torch.zeros(3, dtype=torch.int64), "shape"),
        (torch.full((C,), 2), "not 0 or 1"),
    ],
)
def test_targets_are_checked(target: Tensor, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        TASK.check_target(target)
