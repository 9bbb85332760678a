"""The kit finds the mistakes of methods that it is there for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.spec import DataSpec
from mmrobust.methods.base import Features, Method, Output, Prediction
from mmrobust.methods.dropout import ModalityDropout
from mmrobust.testing import check_method, describe_data


class MultipliesByTheMask(ModalityDropout):
    def encode(self, batch: Batch) -> dict[str, Features]:
        whole = batch.with_available(torch.ones_like(batch.available))
        columns = zip(super().encode(whole).items(), batch.available.unbind(1), strict=True)
        return {m: f * column[:, None] for (m, f), column in columns}


class LooksAtHiddenFeatures(ModalityDropout):
    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        return super().fuse(features, torch.ones_like(available))


class MixesRows(ModalityDropout):
    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        output = super().fuse(features, available)
        return Output(Prediction(output.logits - output.logits.mean(0)))


class DrawsAtInference(ModalityDropout):
    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        output = super().fuse(features, available)
        return Output(Prediction(output.logits + 0.01 * torch.randn_like(output.logits)))


class RemembersOutsideItsState(ModalityDropout):
    offset = 0.0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        self.offset += 0.5
        return super().losses(batch)

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        logits = super().fuse(features, available).logits
        return Output(Prediction(logits * (1 + self.offset)))


class HasAnUnusedParameter(ModalityDropout):
    def __init__(self, **base: Any) -> None:
        super().__init__(**base)
        self.unused = torch.nn.Linear(2, 2)


class SumsOverNothing(ModalityDropout):
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        rows = batch.available.all(1)
        output = self.fuse(self.encode(batch), batch.available)
        return {"task": self.task.loss(output.logits, batch.target)[rows].mean()}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (MultipliesByTheMask, "absent inputs|not finite"),
        (LooksAtHiddenFeatures, "features that `available` hides"),
        (MixesRows, "row-wise|depends on its batch"),
        (DrawsAtInference, "something is drawn at inference|changes the prediction"),
        (RemembersOutsideItsState, "no parameter or buffer|changes the prediction"),
        (HasAnUnusedParameter, "unused.weight got no gradient"),
        (SumsOverNothing, "the term 'task' is nan"),
    ],
)
def test_finds(method: type[Method], message: str) -> None:
    config = compose_config(["method=dropout", "encoder.width=8", "allow=[tests]"]).method
    config._target_ = f"{method.__module__}.{method.__qualname__}"
    build: Callable[[DataSpec], Method] = lambda spec: construct(config, spec=spec)  # noqa: E731
    with pytest.raises(AssertionError, match=message):
        check_method(build, describe_data(num_modalities=2))
