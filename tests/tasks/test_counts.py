"""Metrics against torchmetrics and by hand."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_jaccard_index,
)

from mmrobust.tasks.counts import (
    BINS,
    calibration_counts,
    classification_metrics,
    confusion_counts,
    segmentation_metrics,
)

K, B, C = 3, 400, 6


@pytest.fixture
def data() -> tuple[Tensor, Tensor, Tensor]:
    """Logits (K, B, C) of growing quality, targets (K, B) that lack the last class, and who counts (K, B)."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(C - 1, (B,), generator=generator).expand(K, B)
    logits = torch.randn(K, B, C, generator=generator)
    logits += torch.arange(1, K + 1)[:, None, None] * torch.nn.functional.one_hot(target, C)
    logits[0, :, C - 1] -= 100  # never predicted by the first: a class that does not occur there
    return logits, target, torch.rand(K, B, generator=generator) < 0.7


def scores(logits: Tensor, target: Tensor, counted: Tensor) -> dict[str, Tensor]:
    confusion = confusion_counts(logits.argmax(-1), target, counted, C)
    return classification_metrics(confusion, calibration_counts(logits, target, counted))


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("accuracy", partial(multiclass_accuracy, num_classes=C, average="micro")),
        ("macro_f1", partial(multiclass_f1_score, num_classes=C, average="macro")),
        ("ece", partial(multiclass_calibration_error, num_classes=C, n_bins=15)),
    ],
)
def test_classification(
    data: tuple[Tensor, Tensor, Tensor], name: str, reference: Callable[..., Tensor]
) -> None:
    logits, target, counted = data
    ours = scores(*data)[name]
    assert ours.shape == (K,)
    for k in range(K):
        expected = reference(logits[k, counted[k]].softmax(-1), target[k, counted[k]])
        assert ours[k].item() == pytest.approx(expected.item(), abs=1e-6)


def test_confusion_rows_are_true(data: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, counted = data
    ours = confusion_counts(logits.argmax(-1), target, counted, C)
    for k in range(K):
        rows = counted[k]
        expected = multiclass_confusion_matrix(logits[k, rows].argmax(-1), target[k, rows], num_classes=C)
        assert torch.equal(ours[k], expected)


def test_counts_add_up_over_batches(data: tuple[Tensor, Tensor, Tensor]) -> None:
    parts = [tuple(x[:, rows] for x in data) for rows in (slice(0, 150), slice(150, B))]
    confusion = sum(confusion_counts(x.argmax(-1), t, c, C) for x, t, c in parts)
    calibration = sum(calibration_counts(*part) for part in parts)
    for name, value in classification_metrics(confusion, calibration).items():
        torch.testing.assert_close(value, scores(*data)[name])


def test_what_is_not_counted_does_not_matter(data: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, counted = data
    other = logits.clone()
    other[~counted] = 1e4 * torch.randn(int((~counted).sum()), C)
    elsewhere = torch.where(counted, target, 0)
    for name, value in scores(other, elsewhere, counted).items():
        assert torch.equal(value, scores(*data)[name]), name


def test_by_hand() -> None:
    """Four samples: two right at confidence 0.6, one wrong and one right at 0.9."""
    confidence = torch.tensor([0.6, 0.6, 0.9, 0.9])
    logits = torch.stack([confidence, 1 - confidence, torch.zeros(4) + 1e-30], 1).log()[None]
    target = torch.tensor([[0, 0, 1, 0]])
    confusion = confusion_counts(logits.argmax(-1), target, torch.ones(1, 4).bool(), 3)
    assert confusion.tolist() == [[[3, 0, 0], [1, 0, 0], [0, 0, 0]]]
    found = classification_metrics(confusion, calibration_counts(logits, target, torch.ones(1, 4).bool()))
    assert found["accuracy"].item() == 0.75
    assert found["macro_f1"].item() == pytest.approx((6 / 7 + 0) / 2)  # the third class does not occur
    assert found["ece"].item() == pytest.approx((2 * 0.4 + 2 * abs(0.9 - 0.5)) / 4, abs=1e-6)


@pytest.mark.parametrize(
    ("confidence", "bin_"), [(1.0, BINS - 1), (0.51, 7), (0.5, 7), (0.46, 6), (1 / 3, 4)]
)
def test_bins_of_confidence(confidence: float, bin_: int) -> None:
    rest = (1 - confidence) / 2
    logits = torch.tensor([[[confidence, rest, rest]]]).log()
    counts = calibration_counts(logits, torch.zeros(1, 1).long(), torch.ones(1, 1).bool())
    assert counts[0, :, 0].nonzero().flatten().tolist() == [bin_]
    assert counts[0, bin_].tolist() == pytest.approx([1, confidence, 1])


# Segmentation


@pytest.fixture
def maps() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(C - 2, (1, 2, 9, 9), generator=generator).expand(K, 2, 9, 9)
    noise = torch.randint(C - 1, target.shape, generator=generator)
    predicted = torch.where(torch.rand(target.shape, generator=generator) < 0.6, target, noise)
    return predicted, target, torch.rand(target.shape, generator=generator) < 0.8


def test_segmentation(maps: tuple[Tensor, Tensor, Tensor]) -> None:
    """Class C-2 is predicted but never true, C-1 does not occur at all."""
    predicted, target, counted = maps
    ours = segmentation_metrics(confusion_counts(*maps, C))
    for k in range(K):
        pair = predicted[k][counted[k]], target[k][counted[k]]
        expected = {
            "miou": multiclass_jaccard_index(*pair, num_classes=C, average="macro"),
            "pixel_accuracy": multiclass_accuracy(*pair, num_classes=C, average="micro"),
            "mean_accuracy": torch.stack(
                [(pair[0][pair[1] == c] == c).float().mean() for c in pair[1].unique()]
            ).mean(),
        }
        for name, value in expected.items():
            assert ours[name][k].item() == pytest.approx(value.item(), abs=1e-6), name


def test_segmentation_by_hand() -> None:
    """IoU 1/3 and 2/4, recall 1/2 and 2/3; the third class does not occur."""
    confusion = torch.tensor([[[1, 1, 0], [1, 2, 0], [0, 0, 0]]])
    found = segmentation_metrics(confusion)
    assert found["miou"].item() == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert found["mean_accuracy"].item() == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["pixel_accuracy"].item() == pytest.approx(3 / 5)


def test_nothing_counted_is_nan() -> None:
    confusion = torch.zeros(2, C, C, dtype=torch.int64)
    confusion[0, 1, 1] = 3
    metrics = classification_metrics(confusion, torch.zeros(2, BINS, 3)) | segmentation_metrics(confusion)
    for name, value in metrics.items():
        assert value.isnan().tolist() == [False, True], name
