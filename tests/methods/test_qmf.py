"""QMF against its rules."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmrobust import ranks
from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.methods.qmf import QMF, rank_loss
from mmrobust.testing import check_method, describe_data, fill_absent, make_batch, step


def make(*overrides: str, num_modalities: int = 2, task: str = "classification") -> QMF:
    torch.manual_seed(0)
    config = compose_config(["method=qmf", "encoder.width=8", *overrides]).method
    kinds = ("vector",) if task == "classification" else ("image",)
    spec = describe_data(num_modalities=num_modalities, kinds=kinds, task=task)
    method: QMF = construct(config, spec=spec)
    return method


def all_there(x: Tensor) -> Tensor:
    return torch.ones_like(x, dtype=torch.bool)


def test_fused_logits_are_weighted_by_a_tenth_of_log_sum_exp() -> None:
    method = make(num_modalities=3).eval()
    with torch.no_grad():
        for head in method.heads.values():
            head.weight.zero_()
        for m, bias in zip(method.heads, ([1.0, 2, 3, 4], [0.0, 0, 0, 0], [-5.0, -5, -5, 5]), strict=True):
            method.heads[m].bias.copy_(torch.tensor(bias))
    batch = make_batch(method.spec, size=2)
    available = torch.tensor([[True, True, False], [True, True, True]])
    output = method.fuse(method.encode(batch), available)
    # log(e + e^2 + e^3 + e^4) = 4.44019, log(4) = 1.386294, log(e^5 + 3 e^-5) = 5.000136
    expected = torch.tensor([0.444019, 0.1386294, 0.5000136])
    torch.testing.assert_close(output.extras["confidence"], expected.expand(2, -1), rtol=1e-5, atol=1e-5)
    first = 0.444019 * torch.tensor([1.0, 2, 3, 4])
    third = 0.5000136 * torch.tensor([-5.0, -5, -5, 5])
    torch.testing.assert_close(output.logits, torch.stack([first, first + third]), rtol=1e-5, atol=1e-5)


def test_no_gradient_flows_through_the_weights() -> None:
    """Gradients of the fused logits are those with constant weights."""
    method = make()
    batch = make_batch(method.spec)
    features = {m: f.detach() for m, f in method.encode(batch).items()}
    head = method.heads["m1"]
    output = method.fuse(features, batch.available)
    (found,) = torch.autograd.grad(output.logits.sum(), head.weight)
    weight = output.extras["confidence"][:, :1].detach()  # (B, 1)
    expected = (weight * features["m1"]).sum(0).expand_as(head.weight)
    torch.testing.assert_close(found, expected)


def test_rank_loss_by_hand() -> None:
    """Pairs (0, 1), (1, 2), (2, 0): gaps of difficulty 0.5, 0.5 and 1, of confidence 0.3, -0.1 and -0.2."""
    confidence = torch.tensor([[0.5], [0.2], [0.3]])
    difficulty = torch.tensor([[0.0], [0.5], [1.0]])
    there = all_there(confidence)
    found = rank_loss(confidence, difficulty, there, inverted_margin=False)
    # 0.5 - 0.3, 0.5 + 0.1, 1 - 0.2
    torch.testing.assert_close(found, torch.tensor((0.2 + 0.6 + 0.8) / 3))
    released = rank_loss(confidence, difficulty, there, inverted_margin=True)
    assert released == 0  # the only wrong pair, by 0.1, is within its margin of 0.5
    wrong = torch.tensor([[0.5], [0.2], [0.9]])  # now by 0.7, and the last pair by 0.4 within 1
    released = rank_loss(wrong, difficulty, there, inverted_margin=True)
    torch.testing.assert_close(released, torch.tensor(0.2 / 3))


def test_rank_loss_is_zero_in_order_with_margin() -> None:
    torch.manual_seed(0)
    difficulty = torch.rand(20, 3)
    there = all_there(difficulty)
    assert rank_loss(-1.01 * difficulty, difficulty, there, inverted_margin=False) == 0
    assert rank_loss(-0.9 * difficulty, difficulty, there, inverted_margin=False) > 0  # too close together
    assert rank_loss(difficulty, difficulty, there, inverted_margin=False) > 0  # the wrong way round
    assert rank_loss(torch.randn(20, 3), torch.ones(20, 3), there, inverted_margin=False) == 0  # ties


def test_rank_loss_counts_pairs_that_have_the_modality() -> None:
    """Modality by modality: of (0, 1), (1, 2), (2, 0) only those without an absent row."""
    confidence = torch.tensor([[0.0, 0.0], [0.0, torch.nan], [0.0, 0.0]])
    difficulty = torch.tensor([[0.0, 0.0], [0.2, 0.0], [1.0, 0.5]])
    available = torch.tensor([[True, True], [True, False], [True, True]])
    found = rank_loss(confidence, difficulty, available, inverted_margin=False)
    torch.testing.assert_close(found, torch.tensor((0.2 + 0.8 + 1.0) / 3 + 0.5 / 3))


def test_terms_are_the_papers() -> None:
    method = make("method.rank_weight=0.3", "method.unimodal_weight=0.5")
    batch = make_batch(method.spec, complete=False)
    output = method.train().fuse(method.encode(batch), batch.available)
    terms = step(method, batch)
    torch.testing.assert_close(terms["fused"], F.cross_entropy(output.logits, batch.target).detach())
    expected = torch.tensor(0.0)
    for i, logits in enumerate(y.logits for y in output.unimodal.values()):
        rows = batch.available[:, i]
        loss = F.cross_entropy(logits[rows], batch.target[rows], reduction="sum").detach()
        expected += loss / len(batch)
    torch.testing.assert_close(terms["unimodal"], 0.5 * expected)
    rank = rank_loss(
        output.extras["confidence"], method.difficulty()[batch.index], batch.available, inverted_margin=False
    )
    torch.testing.assert_close(terms["rank"], 0.3 * rank.detach())
    assert terms["rank"] > 0


def test_difficulty_is_the_mean_loss_scaled_to_one() -> None:
    method = make()
    first = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    method._remember(torch.tensor([5, 2]), first, torch.tensor([[True, False], [True, True]]))
    method._remember(torch.tensor([5, 7]), torch.tensor([[2.0, 6.0], [0.5, 9.0]]), all_there(first))
    assert method.loss_count[[5, 2, 7]].tolist() == [[2, 1], [1, 1], [1, 1]]
    # means: 1.5, 3, 0.5 and 6, 4, 9
    expected = torch.tensor([[0.4, 0.4], [1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(method.difficulty()[[5, 2, 7]], expected)
    unseen = torch.ones(method.spec.num_train, dtype=torch.bool)
    unseen[[5, 2, 7]] = False
    assert (method.difficulty()[unseen] == 0).all()
    assert (make().difficulty() == 0).all()  # nothing seen at all


def test_losses_are_remembered_by_sample_and_modality() -> None:
    method = make()
    batch = make_batch(method.spec, complete=False)
    batch.index += 10
    output = method.train().fuse(method.encode(batch), batch.available)
    step(method, batch)
    assert torch.equal(method.loss_count[10:18], batch.available.float())
    assert method.loss_count.sum() == batch.available.sum()
    for i, logits in enumerate(y.logits for y in output.unimodal.values()):
        loss = F.cross_entropy(logits, batch.target, reduction="none").detach()
        torch.testing.assert_close(method.loss_total[10:18, i], torch.where(batch.available[:, i], loss, 0))
    with torch.no_grad():
        method.eval()(batch)
    assert method.loss_count.sum() == batch.available.sum()  # predictions teach nothing


def test_increments_are_summed_over_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here of two ranks with the same samples."""
    alone, together = make(), make()
    batch = make_batch(alone.spec)
    step(alone, batch)
    monkeypatch.setattr(ranks, "total", lambda x: 2 * x)
    step(together, batch)
    assert torch.equal(together.loss_count, 2 * alone.loss_count)
    assert torch.equal(together.loss_total, 2 * alone.loss_total)
    assert torch.equal(together.difficulty(), alone.difficulty())


def test_per_sample_losses_are_restored() -> None:
    method, batch = make(), make_batch(make().spec)
    step(method, batch)
    other = make()
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.loss_total, method.loss_total)
    assert torch.equal(other.loss_count, method.loss_count)
    assert (method.difficulty() > 0).any()
    assert torch.equal(other.difficulty(), method.difficulty())


def test_confidence_maps_in_segmentation() -> None:
    """Weights are maps; the rank loss sees each sample's mean."""
    method = make(task="segmentation", num_modalities=3)
    batch = make_batch(method.spec, size=4)
    output = method.fuse(method.encode(batch), batch.available)
    logits = torch.stack([y.logits for y in output.unimodal.values()], 1)
    confidence = logits.logsumexp(2) / 10
    torch.testing.assert_close(output.extras["confidence"], confidence)
    torch.testing.assert_close(output.logits, (confidence[:, :, None] * logits).sum(1))
    rank = step(method, batch)["rank"]
    expected = rank_loss(
        confidence.mean((2, 3)), method.difficulty()[batch.index], batch.available, inverted_margin=False
    )
    torch.testing.assert_close(rank, 0.1 * expected.detach())


def test_absent_modalities_cannot_change_the_output() -> None:
    method = make(num_modalities=3).eval()
    batch = make_batch(method.spec, complete=False)
    with torch.no_grad():
        assert torch.equal(method(fill_absent(batch, 0)).logits, method(fill_absent(batch, torch.nan)).logits)


@pytest.mark.parametrize("num_modalities", [1, 6])
def test_any_number_of_modalities(num_modalities: int) -> None:
    check_method(
        lambda spec: make(num_modalities=len(spec.modalities)),
        describe_data(num_modalities=num_modalities, kinds=("vector",)),
    )


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"method\.temperature=0\.0 is not above 0"):
        make("method.temperature=0.0")
