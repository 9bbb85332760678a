"""The loss of segmentation in numbers, labels at other resolutions, prediction at the labels' resolution."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from mmrobust.errors import UserError
from mmrobust.models.heads import Prediction
from mmrobust.tasks.classification import Classification
from mmrobust.tasks.segmentation import Segmentation, nearest
from mmrobust.testing import describe_data

SPEC = replace(describe_data(task="segmentation", num_classes=3), ignore_index=255)


def task(*weights: float) -> Segmentation:
    return Segmentation(replace(SPEC, class_weights=weights))


def test_the_mean_of_the_loss_is_the_published_weighted_mean_of_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 3, 4, 5, generator=generator)
    target = torch.randint(3, (3, 4, 5), generator=generator)
    target[0, :2] = 255
    target[1] = 255
    weights = torch.tensor([1.0, 0.2, 5.0])
    loss = task(*weights.tolist()).loss(logits, target)
    assert loss.shape == (3,)
    assert loss[1] == 0
    expected = F.cross_entropy(logits, target, weights, ignore_index=255)  # sum w CE / sum w
    torch.testing.assert_close(loss.mean(), expected)


def test_by_hand() -> None:
    """Two pixels of class 0 (weight 1) and 1 (weight 3), p = 1/2 and 1/4: (1 ln 2 + 3 ln 4) / 4."""
    spec = replace(SPEC, num_classes=2, class_weights=(1.0, 3.0))
    logits = torch.tensor([[0.0, 3.0], [0.0, 1.0]]).log().nan_to_num(neginf=0.0).reshape(1, 2, 1, 2)
    loss = Segmentation(spec).loss(logits, torch.tensor([[[0, 1]]]))
    ln2 = torch.tensor(2.0).log()
    torch.testing.assert_close(loss, ((ln2 + 3 * 2 * ln2) / 4).reshape(1))


def test_without_weights_every_pixel_counts_alike() -> None:
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    torch.testing.assert_close(task().loss(logits, target), task(1.0, 1.0, 1.0).loss(logits, target))
    torch.testing.assert_close(task().loss(logits, target).mean(), F.cross_entropy(logits, target))


def test_all_void_has_no_loss_and_a_gradient() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = task().loss(logits, torch.full((2, 4, 4), 255))
    loss.sum().backward()
    assert loss.tolist() == [0, 0]
    assert logits.grad is not None
    assert not logits.grad.any()


def test_resolutions_add_up_whatever_carries_them() -> None:
    full, coarse = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 2, 2)
    target = torch.randint(3, (2, 4, 4))
    expected = task().loss(full, target) + task().loss(coarse, target[:, ::2, ::2])
    for prediction in (Prediction(full, (coarse,)), SimpleNamespace(logits=full, side=(coarse,))):
        torch.testing.assert_close(task().loss(prediction, target), expected)


def test_labels_take_the_nearest_pixel() -> None:
    labels = torch.arange(24).reshape(1, 4, 6)
    assert nearest(labels, (2, 3)).tolist() == [[[0, 2, 4], [12, 14, 16]]]
    assert nearest(labels, (4, 6)) is labels
    expected = F.interpolate(labels[None].float(), size=(3, 4), mode="nearest")[0].long()
    assert torch.equal(nearest(labels, (3, 4)), expected)


def test_prediction_at_the_labels_resolution() -> None:
    logits = torch.randn(2, 3, 3, 4, 4)  # two combinations, three samples
    target = torch.zeros(3, 7, 9, dtype=torch.long)
    predicted = task().predict(logits, target, None)
    large = F.interpolate(logits.flatten(0, 1), size=(7, 9), mode="bilinear").argmax(1)
    assert torch.equal(predicted, large.reshape(2, 3, 7, 9))
    sizes = torch.tensor([[7, 9], [4, 4], [5, 8]])
    predicted = task().predict(logits, target, sizes)
    assert torch.equal(predicted[:, 0], large.reshape(2, 3, 7, 9)[:, 0])
    assert torch.equal(predicted[:, 1, :4, :4], logits[:, 1].argmax(1))
    own = F.interpolate(logits[:, 2], size=(5, 8), mode="bilinear").argmax(1)
    assert torch.equal(predicted[:, 2, :5, :8], own)


def test_a_weight_for_every_class() -> None:
    with pytest.raises(UserError, match="2 class weights for 3 classes"):
        task(1.0, 2.0)


def test_a_decoder_must_be_described() -> None:
    with pytest.raises(UserError, match=r"encoder\.decoder"):
        task().head(8)


def test_classification_takes_outputs_and_logits() -> None:
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    one = Classification(describe_data(num_classes=3))
    expected = F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(one.loss(logits, target), expected)
    torch.testing.assert_close(one.loss(SimpleNamespace(logits=logits, side=()), target), expected)
