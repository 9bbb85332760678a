"""Comparing modalities."""

from __future__ import annotations

import torch
from torch import nn

from mmrobust.methods.parts.balance import gradients, mean_of_others, mean_over_rows


def test_means_count_rows_that_have_the_modality() -> None:
    values = torch.tensor([[1.0, 5.0, 9.0], [3.0, 7.0, 9.0]])
    available = torch.tensor([[True, True, False], [True, False, False]])
    means, seen = mean_over_rows(values, available)
    assert means.tolist() == [2.0, 5.0, 0.0]
    assert seen.tolist() == [True, True, False]


def test_the_others_mean_leaves_out_oneself_and_the_unseen() -> None:
    values = torch.tensor([1.0, 2.0, 6.0, 100.0])
    seen = torch.tensor([True, True, True, False])
    assert mean_of_others(values, seen).tolist() == [4.0, 3.5, 1.5, 100.0]


def test_alone_a_modality_is_compared_with_itself() -> None:
    assert mean_of_others(torch.tensor([3.0]), torch.tensor([True])).tolist() == [3.0]
    assert mean_of_others(torch.tensor([3.0, 5.0]), torch.tensor([False, True])).tolist() == [3.0, 5.0]


def test_gradients_are_changed_in_place() -> None:
    layer = nn.Linear(2, 1)
    layer.weight.grad = torch.ones(1, 2)
    (gradient,) = gradients(layer.parameters())
    gradient.mul_(2)
    assert layer.weight.grad.tolist() == [[2.0, 2.0]]
