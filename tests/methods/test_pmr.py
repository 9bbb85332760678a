"""PMR against its rules."""

from __future__ import annotations

import pytest
import torch

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.methods.pmr import PMR, Prototypes
from mmrobust.testing import describe_data, make_batch, step


def make(*overrides: str, num_modalities: int = 2) -> PMR:
    torch.manual_seed(0)
    config = compose_config(["method=pmr", "encoder.width=8", *overrides]).method
    method: PMR = construct(config, spec=describe_data(num_modalities=num_modalities, kinds=("vector",)))
    return method


def test_prototypes_are_class_means_after_one_epoch() -> None:
    method = make()
    features, targets, there = [], [], []
    for seed in range(3):
        batch = make_batch(method.spec, size=16, complete=False, seed=seed)
        with torch.no_grad():
            features.append(method.train().encode(batch)["m1"])
        targets.append(batch.target)
        there.append(batch.available[:, 0])
        step(method, batch)
    method.finish_epoch()
    z, y, has = torch.cat(features), torch.cat(targets), torch.cat(there)
    assert not has.all()
    means = torch.stack([z[has & (y == c)].mean(0) for c in range(4)])
    torch.testing.assert_close(method.prototypes["m1"].centres, means)
    assert method.prototypes["m1"].known.all()
    assert not method.prototypes["m1"].counts.any()


def test_prototypes_move_slowly_and_keep_what_was_not_seen() -> None:
    prototypes = Prototypes(num_classes=3, width=1, momentum=0.2)
    there = torch.tensor([True, True])
    for values in ([[1.0], [4.0]], [[6.0], [8.0]]):
        prototypes.observe(torch.tensor(values), torch.tensor([0, 1 if values[0] == [1.0] else 0]), there)
        prototypes.finish_epoch()
    assert prototypes.centres.flatten().tolist() == pytest.approx([0.2 * 1 + 0.8 * 7, 4, 0])
    assert prototypes.known.tolist() == [True, True, False]
    logits = prototypes.logits(torch.tensor([[4.0]]))[0]
    assert logits[:2].tolist() == pytest.approx([-1.8, 0])
    assert logits.softmax(0)[2] == 0


def prepared(*overrides: str, num_modalities: int = 2) -> PMR:
    """After one epoch."""
    method = make(*overrides, num_modalities=num_modalities)
    for seed in range(4):
        step(method, make_batch(method.spec, size=16, seed=seed))
    method.finish_epoch()
    return method


def test_terms_are_the_papers() -> None:
    """Both terms from distances, written out: the slow modality's loss, the fast one's entropy."""
    method = prepared("method.weight=0.7", "method.entropy_weight=0.3")
    method.prototypes["m2"].centres *= 0.1  # says less
    batch = make_batch(method.spec, size=16, seed=7)
    rows = torch.arange(16)
    with torch.no_grad():
        z = method.train().encode(batch)
        distance = {m: (z[m][:, None] - method.prototypes[m].centres).norm(dim=2) for m in z}
        p = {m: (-d).softmax(1) for m, d in distance.items()}
    score = {m: x[rows, batch.target].sum() for m, x in p.items()}
    slow, fast = sorted(score, key=lambda m: score[m].item())
    weight = (score[fast] / score[slow] - 1).clamp(0, 1)
    assert weight > 0
    terms = step(method, batch)
    torch.testing.assert_close(terms["prototypes"], 0.7 * weight * -p[slow][rows, batch.target].log().mean())
    entropy = -(p[fast] * p[fast].log()).sum(1).mean()
    torch.testing.assert_close(terms["entropy"], -0.3 * weight * entropy, rtol=1e-4, atol=1e-5)


def test_balanced_modalities_get_nothing() -> None:
    method = prepared()
    for modules in (method.encoders, method.prototypes):
        modules["m2"].load_state_dict(modules["m1"].state_dict())
    batch = make_batch(method.spec)
    batch.inputs["m2"] = batch.inputs["m1"]
    terms = step(method, batch)
    assert terms["prototypes"] == 0
    assert terms["entropy"] == 0


def test_without_prototypes_nothing_acts() -> None:
    terms = step(make(), make_batch(describe_data(kinds=("vector",))))
    assert terms["prototypes"] == 0
    assert terms["entropy"] == 0


def test_the_reward_has_its_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    method = prepared("method.entropy_epochs=2", num_modalities=3)
    batch = make_batch(method.spec, size=16, seed=7)
    for epoch, acts in ((1, True), (2, False)):
        monkeypatch.setattr(PMR, "current_epoch", epoch)
        assert bool(step(method, batch)["entropy"] != 0) == acts


def test_prototypes_are_restored_in_the_middle_of_an_epoch() -> None:
    method, other = prepared(), make()
    step(method, make_batch(method.spec, seed=5))
    other.load_state_dict(method.state_dict())
    for m in (method, other):
        step(m, make_batch(method.spec, seed=6))
        m.finish_epoch()
    for m in method.modalities:
        assert torch.equal(method.prototypes[m].centres, other.prototypes[m].centres)
        assert other.prototypes[m].known.any()


def test_mistakes() -> None:
    with pytest.raises(UserError, match="momentum=1"):
        make("method.momentum=1.0")
