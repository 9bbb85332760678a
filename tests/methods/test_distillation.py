"""The distillation baselines: each is its loss on top of modality dropout."""

from __future__ import annotations

import pytest
import torch

from mmrobust import losses
from mmrobust.batch import Batch
from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.methods.base import Method, Output
from mmrobust.methods.distillation import KINDS, Distillation
from mmrobust.models.pyramid import deepest
from mmrobust.testing import describe_data, make_batch, step


def make(*overrides: str, task: str = "classification", method: str = "distillation") -> Method:
    torch.manual_seed(0)
    config = compose_config([f"method={method}", "encoder.width=8", *overrides]).method
    spec = describe_data(kinds=("image",) if task == "segmentation" else ("vector",), task=task)
    built: Method = construct(config, spec=spec)
    return built


class Guide:
    """Stands in for a teacher: another network's prediction."""

    def __init__(self, task: str) -> None:
        self.network = make("seed=1", task=task, method="fusion").eval()
        for p in self.network.parameters():
            p.data.mul_(1.5)

    def __call__(self, batch: Batch) -> Output:
        with torch.no_grad():
            return self.network(batch)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind: str, task: str) -> None:
    method = make(f"method.kind={kind}", "method.weight=3", "method.temperature=4", task=task)
    assert isinstance(method, Distillation)
    batch = make_batch(method.spec)
    assert list(step(method, batch)) == ["task"]  # without a teacher nothing is distilled
    method.teacher = guide = Guide(task)  # type: ignore[assignment]
    terms = step(method, batch)
    teacher, student = guide(batch), method.fuse(method.encode(batch), method.draw(batch))
    assert student.fused is not None
    assert teacher.fused is not None
    features, logits = (deepest(student.fused), deepest(teacher.fused)), (student.logits, teacher.logits)
    expected = {
        "fitnet": lambda: losses.hint(*features),
        "at": lambda: losses.attention_transfer(*features),
        "sp": lambda: losses.similarity_preserving(*features),
        "pkt": lambda: losses.probabilistic_knowledge_transfer(*features),
        "dad": lambda: losses.similarity_distillation(*features),
        "soft_targets": lambda: losses.soft_targets(*logits, temperature=4),
        "logits": lambda: losses.logit_distillation(*logits),
    }[kind]()
    torch.testing.assert_close(terms["distillation"], 3 * expected.detach(), rtol=1e-4, atol=1e-6)
    assert terms["distillation"] > 0


def test_mistakes() -> None:
    with pytest.raises(UserError, match="'hint' is not known; choose one of fitnet, at, sp, pkt, dad, soft"):
        make("method.kind=hint")
    with pytest.raises(UserError, match="temperature=0 is not above 0"):
        make("method.temperature=0")
