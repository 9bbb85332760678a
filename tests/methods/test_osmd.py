"""OSMD against its equations."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.evaluation.results import read_results
from mmrobust.losses import maximum_mean_discrepancy
from mmrobust.methods.osmd import OSMD
from mmrobust.methods.parts.translated_trunk import TranslatedTrunk, TranslationBlock
from mmrobust.models.pyramid import Pyramid, levels
from mmrobust.models.stages import Staged
from mmrobust.run import main
from mmrobust.testing import check_method, describe_data, make_batch, step
from tests.runs import tiny

FIXED = "method.privileged=[m2]"
RECONSTRUCTION = "method.layout=reconstruction"
STAGED = ["method.stages=teacher_first", "method.teacher_epochs=2"]
SEQUENTIAL = ["method.stages=sequential", "method.teacher_epochs=1", "method.transfer_epochs=2"]


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
        [FIXED, *STAGED],
        SEQUENTIAL,
        [
            "encoder.width=8",
            "+encoder.m2={name: tiny, pretrained: false, weights: null, norm: batch, width: 12, options: {}}",
        ],
    ],
)
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_every_form_conforms(overrides: list[str], task: str) -> None:
    config = compose_config(["method=osmd", RECONSTRUCTION, "encoder.width=8", *overrides]).method
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


def test_adaptation_is_raised_slowly() -> None:
    method = make("method.ramp_epochs=4")
    for epoch, ramp in ((0, 0.0), (1, 0.25), (4, 1.0), (9, 1.0)):
        assert method.phases.ramp(epoch) == ramp


@pytest.mark.parametrize(
    ("overrides", "acting"),
    [
        (STAGED, [{"branch"}, {"branch"}, {"task", "translation", "restored", "adaptation"}]),
        (SEQUENTIAL, [{"branch"}, *2 * [{"restored", "adaptation"}], {"task", "translation"}]),
    ],
)
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_stages(
    task: str, overrides: list[str], acting: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what a stage trains moves; what came before is frozen, its running statistics, too."""
    keys: Any = {"task": task, "kinds": ("image",)} if task == "segmentation" else {}
    method = make(FIXED, "method.restored_weight=1", *overrides, **keys).train()
    batch = make_batch(method.spec)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, weight_decay=0.1)
    method._trainer = SimpleNamespace()  # type: ignore[assignment]
    for epoch, terms in enumerate(acting):
        monkeypatch.setattr(OSMD, "current_epoch", epoch)
        before = {name: x.clone() for name, x in method.state_dict().items()}
        optimizer.zero_grad()
        total = method.training_step(batch, 0)
        assert {name for name, term in method.last_terms.items() if term} == terms
        assert total is not None
        total.backward()
        assert all(p.grad is not None for p in method.parameters())
        method.on_before_optimizer_step(optimizer)
        optimizer.step()
        moved = {name for name, x in method.state_dict().items() if not torch.equal(x, before[name])}
        branch = ("encoders.m2", "joint_adaptation.branch")
        transfer = ("joint_adaptation.hallucinations", "joint_adaptation.restored")
        found = [any(name.startswith(parts) for name in moved) for parts in (branch, transfer)]
        found.append(any(not name.startswith((*branch, *transfer)) for name in moved))
        assert found == [term in terms for term in ("branch", "adaptation", "task")], epoch
    assert method.selectable_from == len(acting) - 1


# The released network


def released(*overrides: str, **data: Any) -> OSMD:
    return make(*overrides, **({"kinds": ("image",), "task": "segmentation"} | data))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("overrides", [[FIXED], [], ["method.places=null"]], ids=str)
def test_the_released_network_conforms(overrides: list[str], count: int) -> None:
    config = compose_config(["method=osmd", "encoder.width=8", "method.ramp_epochs=0", *overrides]).method
    spec = describe_data(num_modalities=count, kinds=("image",), task="segmentation")
    check_method(lambda spec: construct(config, spec=spec), spec)


def test_a_block_by_hand() -> None:
    """J2 = [T1(m1); T2(m1)], J3 = [T1(m2); T2(m2)], J1 their mean, fused = ReLU(G(J1)); symmetric."""
    torch.manual_seed(0)
    block = TranslationBlock(2, 6)
    a, b = torch.randn(3, 6, 4, 5), torch.randn(3, 6, 4, 5)
    with torch.no_grad():
        j2, j3 = (torch.cat([t(x).relu() for t in block.slots], 1) for x in (a, b))
        j1 = (j2 + j3) / 2
        fused, gap = block({"m1": a, "m2": b})
        torch.testing.assert_close(fused, block.merge(j1).relu())
        torch.testing.assert_close(gap.mean(), F.mse_loss(j2, j1) + F.mse_loss(j3, j1))
        torch.testing.assert_close(block({"m1": b, "m2": a})[0], fused)
    assert sum(p.numel() for p in block.parameters()) == 2 * (6 * 3 + 3) + 6 * 6 + 6


def test_the_released_network_by_hand() -> None:
    """Level by level for one available and one privileged modality, and every term of the loss."""
    keys = ("method.alpha=3", "method.beta=0.5", "method.translation_weight=0.7")
    method = released(FIXED, *keys).train()
    batch = make_batch(method.spec, size=4)
    terms = {name: term.detach() for name, term in method.losses(batch).items()}
    trunk, joint, stem = method.fusion, method.joint_adaptation, method.encoders["m1"]
    assert isinstance(trunk, TranslatedTrunk)
    assert isinstance(stem, Staged)
    assert len(stem.stages) == 1
    chain = joint.hallucinations["m1"].chains["m2"]  # type: ignore[union-attr, index]
    with torch.no_grad():
        restored = chain.levels(batch.inputs["m1"])  # type: ignore[union-attr]
        real = method.encoders["m2"].levels(batch.inputs["m2"])  # type: ignore[operator]
        carried, fused, gaps = stem.levels(batch.inputs["m1"])[0], [], []
        for level, block in enumerate(trunk.blocks):
            if level:
                carried = trunk.trunk[level - 1](fused[-1])
            merged, gap = block({"m1": carried, "m2": restored[level]})
            fused.append(merged)
            gaps.append(gap.mean())
        predicted = method.head(Pyramid(trunk.context(fused[2]), (fused[1], fused[0])))
        seen = joint.restored_views["m2"](Pyramid(restored[2], (restored[1], restored[0])))
        guide = joint.branch_views["m2"](Pyramid(real[2], (real[1], real[0])))
        student, teacher = joint.restored_heads["m2"](seen), joint.branch_heads["m2"](guide)
        discrepancy = sum(
            maximum_mean_discrepancy(*(F.adaptive_avg_pool2d(x, 4) for x in pair))
            for pair in zip(levels(seen), levels(guide), strict=True)
        )
        scales = zip((student.logits, *student.side), (teacher.logits, *teacher.side), strict=True)
        divergence = sum(
            4 * F.kl_div((x / 2).log_softmax(1), (y / 2).softmax(1), reduction="none").sum(1).mean()
            for x, y in scales
        )
        expected = {
            "task": method.task.loss(predicted, batch.target).mean(),
            "translation": 0.7 * (gaps[1] + gaps[2]),
            "branch": method.task.loss(teacher, batch.target).mean(),
            "restored": torch.zeros(()),
            "adaptation": 3 * discrepancy + 0.5 * divergence,
        }
    assert len(student.side) == 2
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-5)


def test_the_task_reaches_what_restores_at_every_level() -> None:
    """And the trunk learns nothing from the adaptation."""
    method = released(FIXED).train()
    terms = method.losses(make_batch(method.spec, size=4))
    chains = {n for n, _ in method.named_parameters() if n.startswith("joint_adaptation.hallucinations")}
    assert chains <= gradients(method, terms["task"]).keys()
    assert chains <= gradients(method, terms["adaptation"]).keys()
    trained = ("joint_adaptation.hallucinations", "joint_adaptation.restored")
    assert all(n.startswith(trained) for n in gradients(method, terms["adaptation"]))


def test_a_row_without_the_carrier_begins_with_what_was_restored() -> None:
    method = released(num_modalities=3).eval()
    batch = make_batch(method.spec, size=2)
    seen: list[dict[str, Pyramid]] = []
    method.fusion.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    available = torch.tensor([[False, True, True], [True, True, True]])
    with torch.no_grad():
        features = method.encode(batch)
        method.fuse(features, available)
    stems = [features[m]["restored"]["m1"].skips[-1][0] for m in ("m2", "m3")]
    torch.testing.assert_close(seen[0]["m1"].skips[-1][0], (stems[0] + stems[1]) / 2)
    assert torch.equal(seen[0]["m1"].skips[-1][1], features["m1"]["own"].skips[-1][1])


def test_the_published_encoder() -> None:
    """ResNet-34: five levels, blocks of about 2 C^2 parameters, decoders of three skips."""
    method = released(
        FIXED, "encoder=resnet34", "encoder.width=null", "encoder/decoder=esanet", kinds=("image",)
    )
    trunk = method.fusion
    assert isinstance(trunk, TranslatedTrunk)
    assert [block.merge.out_channels for block in trunk.blocks] == [64, 64, 128, 256, 512]  # type: ignore[union-attr]
    assert trunk.skip_widths == [256, 128, 64]
    batch = make_batch(method.spec, size=2)
    with torch.no_grad():
        assert method.eval()(batch).logits.shape == (2, 4, 32, 32)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_the_released_layout_takes_any_staged_network(name: str) -> None:
    """A block behind the stem and each of four stages, for a pattern that is drawn, too."""
    for privileged in ("[m2]", "null"):
        chosen = [f"method.privileged={privileged}", "encoder=timm", f"encoder.name={name}"]
        method = released(*chosen, "encoder.width=null", "encoder/decoder=tiny").train()
        assert isinstance(method.fusion, TranslatedTrunk)
        assert len(method.fusion.blocks) == 5
        step(method, make_batch(method.spec, size=4))
        assert all(p.grad is not None for p in method.parameters())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.privileged=[]"], "expected some but not all of m1, m2"),
        (["method.privileged=[m1,m2]"], "expected some but not all of m1, m2"),
        (["method.privileged=[depth]"], "names 'depth', but the modalities are m1, m2"),
        (["method.hallucination=none"], "choose pair, source, head"),
        (["method.aggregation=sum"], "choose cross_translation, concat"),
        (["method.stages=two"], "choose one, teacher_first, sequential"),
        (["method.stages=teacher_first", "method.teacher_epochs=0"], "at least 1 epoch"),
        (["method.stages=sequential", "method.hallucination=head"], "later stages change; take pair"),
        (["method.layout=released"], "layout=released does segmentation, but the dataset's task is class"),
    ],
)
def test_mistakes(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(*overrides)


def test_a_single_modality_has_nothing_privileged() -> None:
    with pytest.raises(UserError, match="the data has m1 alone"):
        make(num_modalities=1)


def test_a_run_has_no_score_where_nothing_but_the_privileged_is_there(tmp_path: Path) -> None:
    keys = tiny("data.kinds=[vector]", "data.num_modalities=3", "method=osmd", FIXED, "method.ramp_epochs=0")
    assert main([*keys, f"paths.run={tmp_path}"]) == 0
    found = read_results(tmp_path)
    assert [name for name, row in found["combinations"].items() if row] == ["m1", "m3", "m1+m3"]
    assert len(found["combinations"]) == 7
    assert found["aggregates"]["full"]["accuracy"] is None
