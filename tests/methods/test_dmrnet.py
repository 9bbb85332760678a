"""DMRNet against its equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmrobust.combinations import combination_code
from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.methods.dmrnet import DMRNet
from mmrobust.testing import describe_data, make_batch, step

NOW = "method.mining_epochs=0"


def make(*overrides: str, num_modalities: int = 2) -> DMRNet:
    torch.manual_seed(0)
    config = compose_config(["method=dmrnet", "encoder.width=8", *overrides]).method
    method: DMRNet = construct(config, spec=describe_data(num_modalities=num_modalities, kinds=("vector",)))
    return method


def test_terms_are_the_papers() -> None:
    """Every term from the Gaussians that `fuse` returns, written out by hand."""
    method = make("method.hard=[m1]", NOW, "method.hard_weight=0.7", "method.kl_weight=0.01").train()
    batch = make_batch(method.spec, size=16)
    drawn = method.draw(batch)
    torch.manual_seed(5)
    output = method.fuse(method.encode(batch), drawn)
    torch.manual_seed(5)
    terms = method.losses(batch)
    mean, log_variance, z = (output.extras[k].detach() for k in ("mean", "log_variance", "z"))
    torch.manual_seed(5)
    noise = torch.randn_like(mean)
    torch.testing.assert_close(z, mean + noise * (log_variance / 2).exp())
    cross_entropy = F.cross_entropy(method.head(z).logits, batch.target, reduction="none").detach()
    torch.testing.assert_close(terms["task"].detach(), cross_entropy.mean())
    kl = 0.5 * (log_variance.exp() + mean**2 - log_variance - 1).sum(1).mean()
    torch.testing.assert_close(terms["kl"].detach(), 0.01 * kl)
    hard = drawn[:, 0] & ~drawn[:, 1]
    assert 0 < hard.sum() < 16
    torch.testing.assert_close(terms["hard"].detach(), 0.7 * cross_entropy[hard].sum() / 16)


def test_inference_predicts_from_the_mean() -> None:
    method = make().eval()
    batch = make_batch(method.spec)
    with torch.no_grad():
        for p in method.mean.norm.parameters():
            p.uniform_(0.5, 1.5)
        method.train()(batch)  # running statistics that are not 0 and 1
        method.eval()
        fused = method.fusion(method.encode(batch), batch.available)
        expected = method.head(method.mean(fused)).logits
        torch.testing.assert_close(method(batch).logits, expected)
        assert torch.equal(method(batch).logits, method(batch).logits)


def labels_of_easy_samples_matter(*overrides: str) -> bool:
    method = make("method.hard=[m1]", NOW, *overrides).train()
    batch = make_batch(method.spec, size=16)
    easy = combination_code(method.draw(batch)) != 1
    before = step(method, batch)["hard"]
    batch.target[easy] = (batch.target[easy] + 1) % method.spec.num_classes
    return not torch.equal(before, step(make("method.hard=[m1]", NOW, *overrides), batch)["hard"])


def test_the_regulariser_looks_at_hard_samples_alone() -> None:
    assert not labels_of_easy_samples_matter()
    assert labels_of_easy_samples_matter("method.as_released.unmasked_hard=true")


def test_unmasked_hard_is_the_released_broadcast() -> None:
    """(B,) times (B, 1, 1, 1) is (B, 1, 1, B); its sum over B is the number of hard samples times the mean loss."""
    method = make(
        "method.hard=[m1]", NOW, "method.hard_weight=0.2", "method.as_released.unmasked_hard=true"
    ).train()
    batch = make_batch(method.spec, size=16)
    torch.manual_seed(1)
    terms = method.losses(batch)
    torch.manual_seed(1)
    z = method.fuse(method.encode(batch), method.draw(batch)).extras["z"]
    loss = F.cross_entropy(method.head(z).logits, batch.target, reduction="none")
    indicator = (combination_code(method.draw(batch)) == 1).float().reshape(16, 1, 1, 1)
    released = (loss * indicator).sum() / 16
    torch.testing.assert_close(terms["hard"], 0.2 * released)


@pytest.mark.parametrize("detached", [False, True])
def test_detached_kl_has_no_gradient(detached: bool) -> None:
    method = make(f"method.as_released.detached_kl={str(detached).lower()}").train()
    assert method.losses(make_batch(method.spec))["kl"].requires_grad != detached


@pytest.mark.parametrize(("auxiliary", "extra"), [("shared", 0), ("separate", 8 * 2 * 4 + 4)])
def test_auxiliary_head(auxiliary: str, extra: int) -> None:
    method = make(f"method.auxiliary={auxiliary}")
    base = make()
    count = sum(p.numel() for p in method.parameters()) - sum(p.numel() for p in base.parameters())
    assert count == extra
    assert (method.auxiliary_head is method.head) == (auxiliary == "shared")


def test_log_variance_is_bounded() -> None:
    method = make("method.max_log_variance=0.5").train()
    log_variance = method(make_batch(method.spec)).extras["log_variance"]
    assert log_variance.abs().max() <= 0.5
    assert (log_variance.abs() == 0.5).any()


def test_mining_acts_after_its_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make("method.mining_epochs=2", num_modalities=3).train()
    batch = make_batch(method.spec, size=64)
    for epoch in range(3):
        monkeypatch.setattr(DMRNet, "current_epoch", epoch)
        term = step(method, batch, seed=epoch)["hard"]
        assert (term > 0) == (epoch == 2)
    assert len(method.mining.hard_names) == 3  # of six incomplete combinations
    assert "m1+m2+m3" not in method.mining.hard_names


def test_given_combinations_keep_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make("method.hard=[m1]", "method.mining_epochs=2").train()
    assert method.selectable_from == 2
    for epoch in range(3):
        monkeypatch.setattr(DMRNet, "current_epoch", epoch)
        assert (step(method, make_batch(method.spec, size=16))["hard"] > 0) == (epoch == 2)
    assert not method.mining.count.any()


@pytest.mark.parametrize("mining", ["variance", "loss"])
def test_what_is_mined(mining: str) -> None:
    """Over the samples of a combination the mean of their predicted variances, or of their losses."""
    method = make(f"method.mining={mining}").train()
    batch = make_batch(method.spec, size=16)
    code = combination_code(method.draw(batch))
    torch.manual_seed(5)
    output = method.fuse(method.encode(batch), method.draw(batch))
    torch.manual_seed(5)
    method.losses(batch)
    found = method.mining.total / method.mining.count
    hardness = output.extras["log_variance"].exp().mean(1)
    if mining == "loss":
        hardness = F.cross_entropy(output.logits, batch.target, reduction="none")
    for combination in (1, 2, 3):
        expected = hardness[code == combination].double().mean()
        torch.testing.assert_close(found[combination], expected.detach())


def test_a_trunks_map_is_gaussian_place_by_place() -> None:
    """Sampled before the mean over its places; the KL term adds up all of them, as released for CASIA-SURF."""
    torch.manual_seed(0)
    config = compose_config(
        ["method=dmrnet", "encoder.width=8", "fusion=trunk", "method.kl_weight=0.01"]
    ).method
    method: DMRNet = construct(config, spec=describe_data(kinds=("image",))).train()
    batch = make_batch(method.spec, size=4)
    torch.manual_seed(5)
    output = method.fuse(method.encode(batch), method.draw(batch))
    torch.manual_seed(5)
    terms = method.losses(batch)
    mean, log_variance, z = (output.extras[k] for k in ("mean", "log_variance", "z"))
    assert z.shape == (4, 8, 4, 4)
    expected = F.linear(z.mean((2, 3)), method.head.weight, method.head.bias)
    torch.testing.assert_close(output.logits, expected)
    kl = 0.5 * (log_variance.exp() + mean**2 - log_variance - 1).sum((1, 2, 3)).mean()
    torch.testing.assert_close(terms["kl"], 0.01 * kl)
    with torch.no_grad():
        fused = method.eval().fusion(method.encode(batch), batch.available)
        places = method.mean(fused).mean((2, 3))
        torch.testing.assert_close(method(batch).logits, method.head(places).logits, rtol=1e-4, atol=1e-5)


def test_mistakes() -> None:
    with pytest.raises(UserError, match="choose variance, loss"):
        make("method.mining=histogram")
    with pytest.raises(UserError, match="choose shared, separate"):
        make("method.auxiliary=both")
    with pytest.raises(UserError, match="two modalities only"):
        make("method.as_released.batch_means=true", num_modalities=3)
    with pytest.raises(UserError, match="at least two modalities"):
        make(num_modalities=1)
