"""Schedules by hand."""

from typing import Any

import pytest
import torch

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.schedules import optimization


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


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "step", "warmup_steps", "constant"])
def test_learning_rates_stay_in_proportion(schedule: str) -> None:
    config = compose_config([f"schedule={schedule}", "optimizer.lr=0.4", "trainer.max_epochs=5"])

    def made(*factors: float) -> dict[str, Any]:
        return optimization(
            {factor: [torch.nn.Parameter(torch.zeros(1))] for factor in factors},
            lambda groups: construct(config.optimizer, params=groups),
            lambda optimizer: construct(config.schedule, optimizer=optimizer),
        )

    both, alone = made(1.0, 0.25), made(1.0)
    for _ in range(4):
        full, quarter = (group["lr"] for group in both["optimizer"].param_groups)
        assert full == pytest.approx(alone["optimizer"].param_groups[0]["lr"])
        assert quarter == pytest.approx(full / 4)
        for one in (both, alone):
            one["optimizer"].step()
            one["lr_scheduler"].step()
