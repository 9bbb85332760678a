"""OSMD against its equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.losses import maximum_mean_discrepancy
from mmrobust.methods.osmd import OSMD
from mmrobust.testing import check_method, describe_data, make_batch, step

FIXED = "method.privileged=[m2]"
FROZEN = ["method.privileged_mode=pretrained_frozen", "method.pretrain_epochs=2"]


def make(*overrides: str, **data: Any) -> OSMD:
    torch.manual_seed(0)
    config = compose_config(["method=osmd", "encoder.width=8", "method.ramp_epochs=0", *overrides]).method
    method: OSMD = construct(config, spec=describe_data(**({"kinds": ("vector",)} | data)))
    return method


def gradients(method: OSMD, term: Tensor) -> dict[str, Tensor]:
    """The gradients of a term, of those parameters that have one that is not 0."""
    names, parameters = zip(*[(n, p) for n, p in method.named_parameters() if p.requires_grad], strict=True)
    found = torch.autograd.grad(term, parameters, allow_unused=True, retain_graph=True)
    return {n: g for n, g in zip(names, found, strict=True) if g is not None and g.any()}


@pytest.mark.parametrize(
    "overrides",
    [
        [FIXED],
        ["method.hallucination=pair"],
        ["method.hallucination=head"],
        ["method.aggregation=concat"],
        ["method.alpha=0", "method.beta=0"],
        [FIXED, *FROZEN],
        FROZEN,
        [
            "encoder.width=8",
            "+encoder.m2={name: tiny, pretrained: false, norm: batch, width: 12, options: {}}",
        ],
    ],
)
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_every_form_conforms(overrides: list[str], task: str) -> None:
    config = compose_config(["method=osmd", "encoder.width=8", *overrides]).method
    spec = describe_data(num_modalities=3, kinds=("image",), task=task)
    check_method(lambda spec: construct(config, spec=spec), spec)


def test_terms() -> None:
    """Every term of a fixed split, written out by hand."""
    method = make(FIXED, "method.alpha=3", "method.beta=0.5", "method.translation_weight=0.7").train()
    batch = make_batch(method.spec, size=16)
    terms = method.losses(batch)
    with torch.no_grad():
        features = method.encode(batch)
        restored, real = features["m1"]["restored"]["m2"], features["m2"]["own"]
        joints = method.translation({"m1": features["m1"]["own"], "m2": restored})
        y, *alone = method.head(method.hidden(joints.flatten(0, 1))).logits.unflatten(0, (3, 16))
        guide, student = (
            method.joint_adaptation.branch_heads["m2"](real).logits,
            method.joint_adaptation.restored_heads["m2"](restored).logits,
        )
        divergence = (
            4 * F.kl_div((student / 2).log_softmax(1), (guide / 2).softmax(1), reduction="none").sum() / 16
        )
        expected = {
            "task": F.cross_entropy(y, batch.target),
            "translation": 0.7 * (F.mse_loss(alone[0], y) + F.mse_loss(alone[1], y)),
            "branch": F.cross_entropy(guide, batch.target),
            "restored": F.cross_entropy(student, batch.target),
            "adaptation": 3 * maximum_mean_discrepancy(restored, real) + 0.5 * divergence,
        }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name].detach(), value)


def test_the_real_branch_learns_by_its_own_cross_entropy_alone() -> None:
    method = make(FIXED).train()
    terms = method.losses(make_batch(method.spec, size=16))
    branch = {
        n
        for n, _ in method.named_parameters()
        if n.startswith(("encoders.m2", "joint_adaptation.branch_heads.m2"))
    }
    assert branch == gradients(method, terms["branch"]).keys()
    others = torch.stack([term for name, term in terms.items() if name != "branch"]).sum()
    moved = gradients(method, others)
    for name, _ in method.named_parameters():
        assert (name in moved) == (name not in branch), name


def test_adaptation_moves_hallucinations_alone() -> None:
    """Also where every modality is the real branch of another: no teacher's side is updated."""
    method = make(num_modalities=3).train()
    moved = gradients(method, method.losses(make_batch(method.spec, size=16))["adaptation"])
    for name, _ in method.named_parameters():
        assert (name in moved) == name.startswith(
            ("joint_adaptation.hallucinations", "joint_adaptation.restored_heads")
        ), name


def test_the_task_reaches_the_hallucination() -> None:
    method = make(FIXED).train()
    moved = gradients(method, method.losses(make_batch(method.spec, size=16))["task"])
    assert {
        n for n, _ in method.named_parameters() if n.startswith("joint_adaptation.hallucinations")
    } <= moved.keys()


def test_what_is_absent_is_the_mean_of_its_sources() -> None:
    method = make(num_modalities=3).eval()
    batch = make_batch(method.spec, size=3)
    available = torch.tensor([[True, True, False], [False, True, False], [True, True, True]])
    with torch.no_grad():
        features = method.encode(batch)
        restored = method.joint_adaptation.restore(features, available)
        h1, h2 = features["m1"]["restored"]["m3"], features["m2"]["restored"]["m3"]
        torch.testing.assert_close(
            restored["m3"], torch.stack([(h1[0] + h2[0]) / 2, h2[1], (h1[2] + h2[2]) / 2])
        )
        streams: list[dict[str, Tensor]] = []
        method.translation.register_forward_pre_hook(lambda module, inputs: streams.append(inputs[0]))
        method.fuse(features, available)
    assert torch.equal(streams[0]["m3"][:2], restored["m3"][:2])
    assert torch.equal(streams[0]["m3"][2], features["m3"]["own"][2])
    assert torch.equal(streams[0]["m1"][0], features["m1"]["own"][0])


def test_fixed_split_serves_the_available() -> None:
    method = make("method.privileged=[m2]", num_modalities=3).eval()
    assert method.combinations() == [("m1",), ("m3",), ("m1", "m3")]
    batch = make_batch(method.spec)
    without = batch.available.clone()
    without[:, 1] = False
    with torch.no_grad():
        assert torch.equal(method(batch).logits, method(batch.with_available(without)).logits)


@pytest.mark.parametrize("absent", [0, 1])
def test_rows_without_source_or_target_adapt_nothing(absent: int) -> None:
    method = make(FIXED).train()
    batch = make_batch(method.spec)
    available = batch.available.clone()
    available[:, absent] = False
    available[0] = True  # a single pair, which has no distribution
    terms = step(method, batch.with_available(available))
    assert terms["adaptation"] == 0
    assert all(p.grad is not None for p in method.parameters())


def test_adaptation_is_raised_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make("method.ramp_epochs=4")
    for epoch, ramp in ((0, 0.0), (1, 0.25), (4, 1.0), (9, 1.0)):
        monkeypatch.setattr(OSMD, "current_epoch", epoch)
        assert method.ramp == ramp


def test_two_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """First the branches alone; then a copy of them is the target, which nothing changes."""
    method = make(FIXED, *FROZEN).train()
    batch = make_batch(method.spec)
    assert {name for name, term in step(method, batch).items() if term} == {"branch"}
    with torch.no_grad():
        for p in method.encoders["m2"].parameters():
            p.add_(0.1)
    monkeypatch.setattr(OSMD, "current_epoch", 1)
    method.finish_epoch()
    assert method.frozen is not None
    for copy, learned in zip(method.frozen, method._branches(), strict=True):
        for a, b in zip(copy.state_dict().values(), learned.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    monkeypatch.setattr(OSMD, "current_epoch", 2)
    before = {name: x.clone() for name, x in method.frozen.state_dict().items()}
    assert all(step(method, batch).values())
    assert all(p.grad is None for p in method.frozen.parameters())
    assert all(torch.equal(x, before[name]) for name, x in method.frozen.state_dict().items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.privileged=[]"], "expected some but not all of m1, m2"),
        (["method.privileged=[m1,m2]"], "expected some but not all of m1, m2"),
        (["method.privileged=[depth]"], "names 'depth', but the modalities are m1, m2"),
        (["method.hallucination=none"], "choose pair, source, head"),
        (["method.aggregation=sum"], "choose cross_translation, concat"),
        (["method.privileged_mode=frozen"], "choose joint, pretrained_frozen"),
        (["method.privileged_mode=pretrained_frozen", "method.pretrain_epochs=0"], "at least 1 epoch"),
    ],
)
def test_mistakes(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(*overrides)


def test_a_single_modality_has_nothing_privileged() -> None:
    with pytest.raises(UserError, match="the data has m1 alone"):
        make(num_modalities=1)
