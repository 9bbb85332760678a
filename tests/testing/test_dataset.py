"""The kit finds the mistakes of datasets that it is there for."""

from __future__ import annotations

import pytest
import torch

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.base import DataModule
from mmrobust.data.families.channels import Generated
from mmrobust.data.split import Key, Sample
from mmrobust.testing import check_dataset


class Restless(Generated):
    def __getitem__(self, key: Key) -> Sample:
        sample = super().__getitem__(key)
        return Sample(
            {m: x + torch.rand(()) for m, x in sample.inputs.items() if x is not None}, sample.target
        )


class WrongShape(Generated):
    def __getitem__(self, key: Key) -> Sample:
        sample = super().__getitem__(key)
        return Sample({m: x[:, :-1] for m, x in sample.inputs.items() if x is not None}, sample.target)


@pytest.mark.parametrize(("split", "message"), [(Restless, "gave two samples"), (WrongShape, "has shape")])
def test_finds_in_datasets(split: type[Generated], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data: DataModule = construct(
        compose_config(["data=synthetic", "data.num_train=64", "data.num_test=8", "data.num_val=8"]).data
    )
    data.setup()
    data.splits["train"].__class__ = split
    with pytest.raises(AssertionError, match=message):
        check_dataset(data)


def test_finds_an_id_in_two_splits() -> None:
    data: DataModule = construct(
        compose_config(["data=synthetic", "data.num_train=64", "data.num_test=8", "data.num_val=8"]).data
    )
    data.setup()
    data.splits["test"].ids = data.splits["train"].ids[:8]
    with pytest.raises(AssertionError, match="is in 'train' and 'test'"):
        check_dataset(data)
