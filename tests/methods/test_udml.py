"""UDML against its equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmrobust.batch import Batch
from mmrobust.config.build import construct
from mmrobust.config.check import check_command_line
from mmrobust.config.compose import compose_config
from mmrobust.errors import UserError
from mmrobust.methods.parts.uncertainty import NoiseEstimator, Reliance
from mmrobust.methods.udml import UDML
from mmrobust.testing import describe_data, make_batch, step

KINDS = ("image", "vector", "sequence")


def make(*overrides: str, num_modalities: int = 2) -> UDML:
    torch.manual_seed(0)
    config = compose_config(["method=udml", "encoder.width=8", *overrides]).method
    method: UDML = construct(config, spec=describe_data(num_modalities=num_modalities, kinds=KINDS))
    return method


def noisy(method: UDML, *, complete: bool = True, size: int = 16) -> Batch:
    """A batch in which each modality is noisy in half of the samples, at levels from 1 to 11."""
    batch = make_batch(method.spec, size=size, complete=complete)
    levels = torch.arange(batch.available.numel()).reshape(batch.available.shape) % 22 - 10
    batch.noise_level = levels.clamp(min=0).float()
    return batch


def at_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    monkeypatch.setattr(UDML, "current_epoch", epoch)


def weights(method: UDML, *std: float) -> list[float]:
    """Of one row whose modalities have these standard deviations."""
    features = {
        m: {"z": torch.ones(1, 8), "std": torch.tensor([float(s)])}
        for m, s in zip(method.modalities, std, strict=True)
    }
    available = torch.ones(1, len(std), dtype=torch.bool)
    found: list[float] = method.fuse(features, available).extras["weights"][0].tolist()
    return found


def test_golden_weights() -> None:
    method = make("method.reliance.init=[30,10]")
    assert weights(method.eval(), 2, 5) == pytest.approx([1.351351, 0.648649], abs=1e-5)
    assert weights(method.train(), 2, 5) == pytest.approx([0.5, 1.5], abs=1e-5)  # warming up
    three = make("method.reliance.init=[30,20,10]", num_modalities=3).eval()
    assert weights(three, 1, 2, 4) == pytest.approx([1.92, 0.72, 0.36], abs=1e-5)
    cross = make("method.reliance.init=[30,20,10]", "method.weight_rule=cross_sum", num_modalities=3).eval()
    assert weights(cross, 1, 2, 4) == pytest.approx([0.991736, 1.264463, 0.743802], abs=1e-5)


@pytest.mark.parametrize(
    ("overrides", "warm", "later"),
    [
        (["method.reliance.in_warmup=false"], [1, 1], [1.351351, 0.648649]),
        (["method.reliance.use=false"], [1, 1], [50 / 29, 8 / 29]),
        (["method.uncertainty=none"], [0.5, 1.5], [0.5, 1.5]),
        (["method.uncertainty=none", "method.reliance.use=false"], [1, 1], [1, 1]),
    ],
    ids=str,
)
def test_schedule_and_ablations(
    overrides: list[str], warm: list[float], later: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make("method.reliance.init=[30,10]", "trainer.max_epochs=10", *overrides).train()
    at_epoch(monkeypatch, 5)
    assert weights(method, 2, 5) == pytest.approx(warm, abs=1e-5)
    at_epoch(monkeypatch, 6)
    assert weights(method, 2, 5) == pytest.approx(later, abs=1e-5)
    at_epoch(monkeypatch, 0)
    assert weights(method.eval(), 2, 5) == pytest.approx(later, abs=1e-5)


def test_absent_modalities_weigh_nothing() -> None:
    method = make(num_modalities=3).eval()
    batch = noisy(method, complete=False)
    found = method(batch).extras["weights"]
    assert (found[~batch.available] == 0).all()
    torch.testing.assert_close(found.sum(1), batch.available.sum(1).float())


@pytest.mark.parametrize("preset", ["v1", "v2"])
def test_terms_are_the_papers(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every term from what `encode` and `fuse` return, written out by hand."""
    method = make(f"method/preset={preset}", "method.kl_weight=0.01", "method.unimodal_weight=3").train()
    at_epoch(monkeypatch, 15)
    batch = noisy(method)
    torch.manual_seed(3)
    features = method.encode(batch)
    output = method.fuse(features, batch.available)
    torch.manual_seed(3)
    terms = {name: term.detach() for name, term in method.losses(batch).items()}
    clean, weight = (1.0, 0.1) if preset == "v1" else (0.0, 1.0)
    unimodal = kl = noise = torch.zeros(())
    blocks = {
        m: (1 + output.extras["weights"][:, i : i + 1]) * features[m]["z"] for i, m in enumerate(features)
    }
    for i, m in enumerate(method.modalities):
        level = torch.where(batch.noise_level[:, i] == 0, clean, batch.noise_level[:, i])
        alone = torch.cat([x if name == m else torch.zeros_like(x) for name, x in blocks.items()], 1)
        unimodal = unimodal + F.cross_entropy(method.head(alone).logits, batch.target)
        variance = level[:, None] if preset == "v1" else torch.ones(1)
        mean, log_variance = features[m]["mean"], features[m]["log_variance"]
        terms_of_m = (log_variance.exp() + mean**2) / variance - log_variance + variance.log() - 1
        kl = kl + 0.5 * terms_of_m.sum(1).mean()
        noise = noise + F.mse_loss(features[m]["level"], level)
    fused = F.cross_entropy(method.head(torch.cat(list(blocks.values()), 1)).logits, batch.target)
    torch.testing.assert_close(terms["task"], fused.detach())
    torch.testing.assert_close(terms["unimodal"], 3 * unimodal.detach())
    torch.testing.assert_close(terms["kl"], 0.01 * kl.detach())
    torch.testing.assert_close(terms["noise"], weight * noise.detach())


def test_sigma() -> None:
    x = torch.rand(4, 6, 3)
    for sigma in ("exp", "softplus"):
        estimator = NoiseEstimator(6, activation="none", dropout=0.1, sigma=sigma).eval()
        u = estimator.layers(x.mean(2)).squeeze(1)
        level, std = estimator(x)
        expected = (u / 2).exp() if sigma == "exp" else F.softplus(u)
        torch.testing.assert_close(level, expected)
        torch.testing.assert_close(std, expected + (sigma == "softplus"))


def test_regress_std_cannot_reach_the_clean_level() -> None:
    method = make("method.as_released.regress_std=true").train()
    features = method.encode(make_batch(method.spec))
    torch.manual_seed(0)
    term = method.losses(make_batch(method.spec))["noise"]
    assert all((f["std"] == 1 + f["level"]).all() for f in features.values())
    assert term > 2  # at least 1 for each modality
    assert make().train().losses(make_batch(method.spec))["noise"] < term


@pytest.mark.parametrize("name", ["noise", "task"])
def test_the_noise_regression_reaches_estimators_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = make().train()
    at_epoch(monkeypatch, 15)
    method.losses(noisy(method))[name].backward()
    for key, parameter in method.named_parameters():
        reached = parameter.grad is not None and bool((parameter.grad != 0).any())
        if name == "noise":
            assert reached == key.startswith("estimators."), key
        elif key.startswith("estimators."):
            assert reached, f"{key}: without detach_weights the task trains the estimator, too"


def test_the_weights_reach_no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """What flows back through the weights ends at the estimator's input."""
    method = make().train()
    at_epoch(monkeypatch, 15)
    batch = noisy(method)
    method.fuse(method.encode(batch), batch.available).extras["weights"].square().sum().backward()
    for key, parameter in method.named_parameters():
        reached = parameter.grad is not None and bool((parameter.grad != 0).any())
        assert reached == key.startswith("estimators."), key
    detached = make("method.detach_weights=true").train()
    detached.losses(noisy(detached))["task"].backward()
    assert all(p.grad is None or not p.grad.any() for p in detached.estimators.parameters())


def test_inference_is_from_the_mean() -> None:
    method = make()
    batch = noisy(method)
    with torch.no_grad():
        method.train()(batch)
        features = method.eval().encode(batch)
        for m, x in batch.inputs.items():
            torch.testing.assert_close(
                features[m]["z"], method.task.pool(method.mean[m](method.encoders[m](x)))
            )


def test_reliance_is_a_running_mean() -> None:
    reliance = make("method.reliance.init=[30,10]").reliance
    available = torch.tensor([[True, True], [False, True]])
    alone = [torch.tensor([[1.0, -2.0], [9.0, 9.0]]), torch.tensor([[4.0, 0.0], [0.0, -2.0]])]
    reliance.observe(alone[0], alone, lambda seen: alone[0], available)
    torch.testing.assert_close(reliance.value, torch.tensor([0.9 * 30 + 0.1 * 3, 0.9 * 10 + 0.1 * 3]))
    reliance.observe(alone[0], alone, lambda seen: alone[0], torch.tensor([[False, True], [False, True]]))
    assert reliance.value[0] == pytest.approx(27.3)  # nobody had it


def test_drop_diff_is_the_unimodal_norm_up_to_the_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    """With concatenation and a linear head; no EMA: the last batch's alone."""
    found = []
    for measure in ("l1_unimodal", "drop_diff"):
        method = make(f"method.reliance.measure={measure}", "method.reliance.ema=0").train()
        torch.nn.init.zeros_(method.head.bias)
        step(method, noisy(method))
        found.append(method.reliance.value)
    torch.testing.assert_close(found[0], found[1])
    assert not torch.equal(found[0], torch.ones(2))


def test_drop_diff_needs_another_modality() -> None:
    method = make("method.reliance.measure=drop_diff").train()
    batch = make_batch(method.spec)
    batch = batch.with_available(torch.tensor([[True, False]]).expand(8, 2))
    step(method, batch)
    assert method.reliance.value.tolist() == [1, 1]


def test_reliance_changes_in_training_alone_and_is_saved() -> None:
    method = make().train()
    batch = noisy(method)
    step(method, batch)
    value = method.reliance.value.clone()
    assert not torch.equal(value, torch.ones(2))
    with torch.no_grad():
        method.eval()(batch)
    assert torch.equal(method.reliance.value, value)
    other = make()
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.reliance.value, value)


def test_plain_weights() -> None:
    residual, plain = make().eval(), make("method.apply=plain").eval()
    batch = noisy(plain)
    for output, added in ((residual(batch), 1), (plain(batch), 0)):
        z = plain.encode(batch)["m1"]["z"]
        factor = output.extras["weights"][:, :1] + added
        torch.testing.assert_close(output.extras["weighed"]["m1"], factor * z)


def test_variance_instead_of_the_estimator() -> None:
    method = make("method.uncertainty=variance", "method.max_std=1.1").train()
    for f in method.encode(noisy(method)).values():
        s = f["log_variance"].detach().div(2).exp()
        torch.testing.assert_close(f["std"], s.square().mean(1).sqrt())
        assert not f["std"].requires_grad
        assert s.max() == pytest.approx(1.1)


def test_one_modality_and_presets() -> None:
    assert weights(make(num_modalities=1).eval(), 4) == [1]
    first, second = (compose_config(["method=udml", f"method/preset={v}"]) for v in ("v1", "v2"))
    changed = {k for k in first.method if first.method[k] != second.method[k]}
    assert changed == {"noise_weight", "clean_level", "prior", "estimator"}
    assert [c.choices.noise for c in (first, second)] == ["udml_v1", "udml_v2"]
    single = compose_config(["method=udml", "method/preset=v1", "method.noise_weight=3", "noise=none"])
    assert (single.method.noise_weight, single.method.prior, single.choices.noise) == (3, "level", "none")


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"method/preset=v3 is not known; choose one of v1, v2"):
        check_command_line(["method=udml", "method/preset=v3"], None, False)
    for key in ("prior", "uncertainty", "weight_rule", "apply", "estimator.sigma", "reliance.measure"):
        with pytest.raises(UserError, match=rf"method\.{key}='other' is not known; choose"):
            make(f"method.{key}=other")
    with pytest.raises(UserError, match=r"prior=level needs a variance"):
        make("method.prior=level")
    with pytest.raises(UserError, match="expected 2 positive numbers"):
        make("method.reliance.init=[1,2,3]")
    with pytest.raises(UserError, match="epochs=-1"):
        make("trainer.max_epochs=-1")
    with pytest.raises(UserError, match=r"ema=2.0 is not in \[0, 1\]"):
        Reliance(2, use=True, measure="drop_diff", ema=2.0, init=None, in_warmup=True)


@pytest.mark.parametrize("level", [-1.0, 12.0, float("nan")])
def test_levels_out_of_range(level: float) -> None:
    method = make().train()
    batch = noisy(method)
    assert method.on_before_batch_transfer(batch, 0) is batch
    batch.noise_level[3, 1] = level
    with pytest.raises(UserError, match="noise levels from"):
        method.on_before_batch_transfer(batch, 0)


def test_every_frame_of_a_video_has_gaussians_of_its_own() -> None:
    """Their samples are averaged over frames and places, not the maps before."""
    torch.manual_seed(0)
    config = compose_config(["method=udml", "encoder.width=8"]).method
    method: UDML = construct(config, spec=describe_data(kinds=("video", "image"))).train()
    x = make_batch(method.spec, size=4).inputs["m1"]
    frames = x.shape[2]
    assert frames > 1
    torch.manual_seed(3)
    found = method.encode_modality("m1", x)
    maps = method.encoders["m1"].encoder(
        x.transpose(1, 2).flatten(0, 1)
    )  # statistics are those of all frames
    maps = maps.unflatten(0, (4, frames)).transpose(1, 2)
    assert found["mean"].shape == (4, maps[0].numel())
    mean, log_variance = method.mean["m1"](maps), method.log_variance["m1"](maps)
    torch.manual_seed(3)
    # Its dropout is drawn before the sample.
    method.estimators["m1"]((log_variance / 2).exp())
    z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
    torch.testing.assert_close(found["z"], z.mean((2, 3, 4)))


def test_the_first_half_is_not_selected() -> None:
    assert make("trainer.max_epochs=100").selectable_from == 51
