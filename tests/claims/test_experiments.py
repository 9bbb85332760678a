"""The experiments compose, their controls do what they say, and the text tells what the tables hold."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from mmrobust.config.compose import compose_config
from mmrobust.training.session import build_method, open_data
from tests.claims.experiments.experiment import CONF, ROOT, SEEDS, TABLES, Claim, read, write
from tests.claims.experiments.registry import EXPERIMENTS
from tests.claims.experiments.variance import curvature

MEASURED = [letter for letter, x in EXPERIMENTS.items() if x.complete(read(TABLES / f"{letter}.csv"))]


@pytest.mark.slow
@pytest.mark.parametrize("letter", EXPERIMENTS)
def test_arms_compose_to_different_runs(letter: str) -> None:
    experiment = EXPERIMENTS[letter]
    made = []
    for keys in experiment.arms.values():
        overrides = [key.format(seed=0) for key in (*experiment.common, *keys)]
        config = compose_config(overrides, str(CONF))
        made.append((config.method, config.data, config.trainer, config.optimizer))
    assert all(a != b for i, a in enumerate(made) for b in made[:i])


@pytest.mark.parametrize("letter", EXPERIMENTS)
def test_claims_name_arms(letter: str) -> None:
    experiment = EXPERIMENTS[letter]
    assert {arm for c in experiment.claims for arm in (c.arm, c.than) if arm} <= set(experiment.arms)


@pytest.mark.parametrize("letter", MEASURED)
def test_the_text_tells_what_was_measured(letter: str) -> None:
    text = EXPERIMENTS[letter].text(read(TABLES / f"{letter}.csv"))
    assert text in (ROOT / ".github" / "results.md").read_text()


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((1, 2, 3), "shown"),
        ((0.1, 0.1, 0.1), "not shown"),
        ((9, 9, -0.1), "not shown"),
        ((-1, -2, -3), "wrong"),
        ((-9, -9, 0.1), "not shown"),
    ],
)
def test_a_verdict_needs_the_margin_and_every_seed(gains: tuple[float, ...], verdict: str) -> None:
    found = {("a", seed): {"x": 10 + gain} for seed, gain in zip(SEEDS, gains, strict=True)}
    found |= {("b", seed): {"x": 10.0} for seed in SEEDS}
    assert Claim("", "x", "a", "b", margin=0.5).verdict(found) == verdict


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = {("a, b", 0): {"x": 1.5, "y": -2.0}, ("a, b", 1): {"x": 0.25}}
    write(tmp_path / "V.csv", found)
    assert read(tmp_path / "V.csv") == found


def gradients(name: str, part: str, term: str, *overrides: str) -> list[Tensor]:
    """What a term of a method's losses does to the parameters of one of its parts."""
    config = compose_config(
        ["data=synthetic", "data.num_train=16", "encoder.width=8", f"method={name}", *overrides], str(CONF)
    )
    data = open_data(config)
    method = build_method(config, data.spec).train()
    terms = method.losses(next(iter(data.loader("train"))))
    parameters = list(method.get_submodule(part).parameters())
    found = torch.autograd.grad(terms[term], parameters, allow_unused=True)
    return [gradient for gradient in found if gradient is not None and gradient.any()]


def test_independent_transfer_restores_without_the_task() -> None:
    part, keys = "joint_adaptation.hallucinations", "method.privileged=[m2]"
    assert gradients("osmd", part, "task", keys)
    assert not gradients("independent_transfer", part, "task", keys)
    assert gradients("independent_transfer", part, "restored", keys)
    assert gradients("independent_transfer", "translation", "task", keys)


def test_fixed_noise_is_noise_of_variance_one() -> None:
    config = compose_config(["data=synthetic", "data.num_train=16", "method=fixed_noise"], str(CONF))
    data = open_data(config)
    method = build_method(config, data.spec).train()
    batch = next(iter(data.loader("train")))
    extras = method.fuse(method.encode(batch), batch.available).extras
    assert (extras["z"] - extras["mean"]).std().item() == pytest.approx(1, abs=0.1)
    assert not list(method.get_submodule("log_variance").parameters())


def test_clean_encoders_rest_when_the_noise_begins() -> None:
    config = compose_config(["data=synthetic", "method=clean_encoders", "trainer.max_epochs=4"], str(CONF))
    data = open_data(config)
    method = build_method(config, data.spec)
    assert list(method.resting()) == []
    with patch.object(type(method), "current_epoch", 2):
        assert list(method.resting()) == [method.encoders, method.get_submodule("mean")]


def test_curvature_is_the_mean_of_the_hessians_diagonal() -> None:
    torch.manual_seed(0)
    weight, x, target = torch.randn(3, 5), torch.randn(5), torch.tensor(1)
    hessian = torch.func.hessian(lambda x: torch.nn.functional.cross_entropy(weight @ x, target))(x)
    assert curvature((weight @ x)[None], weight).item() == pytest.approx(
        hessian.diagonal().mean().item(), abs=1e-5
    )
