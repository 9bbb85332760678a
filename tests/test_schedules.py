"""Schedules by hand."""

import pytest
import torch

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config


def test_warmup_steps() -> None:
    keys = ["schedule=warmup_steps", "schedule.warmup=2", "schedule.milestones=[3,5]"]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = construct(compose_config(keys).schedule, optimizer=optimizer)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1.0, 2.0, 2.0, 0.2, 0.2, 0.02])
