"""What of a network the optimizer is told."""

import torch

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.testing import describe_data


def test_encoders_learn_at_rates_of_their_own() -> None:
    keys = [
        "method=dropout",
        "data=synthetic",
        "encoder.width=16",
        "encoder.lr_factor=0.1",
        "encoder.m2.lr_factor=0",
    ]
    config = compose_config([*keys, "optimizer.lr=0.5"])
    method = construct(config.method, spec=describe_data(num_modalities=2))
    optimizer = method.configure_optimizers()["optimizer"]
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[p] for p in method.encoders["m1"].parameters()} == {0.05}
    assert {rates[p] for p in method.encoders["m2"].parameters()} == {0.0}
    assert {rates[p] for p in method.head.parameters()} == {0.5}
    assert len(rates) == len(list(method.parameters()))
    plain = construct(compose_config(keys[:3]).method, spec=describe_data(num_modalities=2))
    (group,) = plain.configure_optimizers()["optimizer"].param_groups
    assert all(a is b for a, b in zip(group["params"], plain.parameters(), strict=True))
    assert isinstance(optimizer, torch.optim.AdamW)
