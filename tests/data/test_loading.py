"""Labels of different sizes in one batch."""

import torch

from mmrobust.data.loading import stack_labels
from mmrobust.testing import describe_data, make_batch


def test_classes_and_labels_of_one_size_stay_as_they_are() -> None:
    classes, size = stack_labels([torch.tensor(2), torch.tensor(0)], 255)
    assert classes.tolist() == [2, 0]
    assert size is None
    labels, size = stack_labels([torch.zeros(2, 3).long(), torch.ones(2, 3).long()], 255)
    assert labels.shape == (2, 2, 3)
    assert size is None


def test_smaller_labels_are_padded_with_void_at_the_bottom_and_the_right() -> None:
    labels, size = stack_labels([torch.zeros(1, 3).long(), torch.ones(2, 2).long()], 255)
    assert labels.tolist() == [[[0, 0, 0], [255, 255, 255]], [[1, 1, 255], [1, 1, 255]]]
    assert size is not None
    assert size.tolist() == [[1, 3], [2, 2]]


def test_label_sizes_follow_the_rows_of_a_batch() -> None:
    batch = make_batch(describe_data(task="segmentation"), size=3)
    assert batch.select([1]).label_size is None
    batch.label_size = torch.tensor([[1, 3], [2, 2], [4, 4]])
    selected = batch.select([2, 0]).label_size
    assert selected is not None
    assert selected.tolist() == [[4, 4], [1, 3]]
