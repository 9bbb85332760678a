"""UDML's claims on generated signals whose noise levels are known. m1 has one pattern a class, m2 twelve.

How well the estimate follows the true level, and what weights gain from either, is experiment U's, see .github/results.md.
"""

from __future__ import annotations

from functools import cache
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.methods.base import Output
from mmrobust.methods.udml import UDML

pytestmark = pytest.mark.long

SEEDS = (0, 1, 2)
CLASSES, LENGTH, STEPS, ROWS = 6, 128, 450, 64
NO_ESTIMATOR = "method.uncertainty=none"
NO_RELIANCE = "method.reliance.use=false"


class Signals:
    """Patterns under white noise of standard deviation 0.1 + 0.25 level."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.patterns = [
            torch.randn(CLASSES, variants, 1, LENGTH, generator=self.generator) for variants in (1, 12)
        ]

    def batch(self, size: int, noisy: float) -> Batch:
        """Samples whose modalities are noisy with a probability, each for itself, at levels from 0 to 11."""
        g = self.generator
        target = torch.randint(CLASSES, (size,), generator=g)
        levels = torch.randint(12, (size, 2), generator=g) * (torch.rand(size, 2, generator=g) < noisy)
        inputs = {}
        for i, patterns in enumerate(self.patterns):
            variant = torch.randint(patterns.shape[1], (size,), generator=g)
            std = 0.1 + 0.25 * levels[:, i, None, None]
            inputs[f"m{i + 1}"] = patterns[target, variant] + std * torch.randn(size, 1, LENGTH, generator=g)
        available = torch.ones(size, 2, dtype=torch.bool)
        return Batch(inputs, available, target, levels.float(), torch.arange(size), [""] * size)


@cache
def trained(seed: int, *overrides: str, steps: int = STEPS, epochs: int = 3) -> tuple[UDML, Batch]:
    """By default three epochs, clean, noisy, weighted; and a noisy test batch."""
    signals = Signals(seed)
    torch.manual_seed(seed)
    keys = [
        "method=udml",
        "encoder.width=64",
        "method.kl_weight=0",
        "method.unimodal_weight=1",
        f"seed={seed}",
    ]
    config = compose_config([*keys, f"method.epochs={epochs}", *overrides]).method
    modalities = {m: Modality("sequence", (1, LENGTH)) for m in ("m1", "m2")}
    method: UDML = construct(config, spec=DataSpec("classification", CLASSES, ROWS, modalities)).train()
    optimizer = torch.optim.Adam(method.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for step in range(steps):
        epoch = epochs * step // steps
        with patch.object(UDML, "current_epoch", epoch):
            terms = method.losses(signals.batch(ROWS, noisy=0.5 if epoch else 0))
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        schedule.step()
    return method.eval(), signals.batch(2000, noisy=1)


@torch.no_grad()
def predict(method: UDML, batch: Batch, rows: Tensor | None = None) -> Output:
    """With the predicted noise of other rows, if asked."""
    features = method.encode(batch)
    if rows is not None:
        features = {m: f | {"std": f["std"][rows]} for m, f in features.items()}
    return method.fuse(features, batch.available)


def accuracy(method: UDML, batch: Batch, rows: Tensor | None = None) -> float:
    return float((predict(method, batch, rows).logits.argmax(1) == batch.target).float().mean())


def moved(seed: int, *overrides: str) -> float:
    """How much more m1 weighs where it is at least 4 levels cleaner than where it is as much noisier."""
    method, batch = trained(seed, *overrides)
    weight, excess = (
        predict(method, batch).extras["weights"][:, 0],
        batch.noise_level @ torch.tensor([1.0, -1.0]),
    )
    return float(weight[excess <= -4].mean() - weight[excess >= 4].mean())


def test_the_weight_moves_to_the_clean_modality() -> None:
    assert min(moved(seed) for seed in SEEDS) > 0.3
    assert moved(0, NO_ESTIMATOR) == pytest.approx(0, abs=1e-5)


def test_shuffled_noise_hurts() -> None:
    def lost(seed: int, *overrides: str) -> float:
        method, batch = trained(seed, *overrides)
        rows = torch.randperm(len(batch), generator=torch.Generator().manual_seed(seed))
        return accuracy(method, batch) - accuracy(method, batch, rows)

    losses = [lost(seed) for seed in SEEDS]
    assert min(losses) > 0
    assert sum(losses) / 3 > 0.005
    assert lost(0, NO_ESTIMATOR) == pytest.approx(0, abs=1e-5)


def test_reliance_raises_the_weight_of_the_hard_modality() -> None:
    def hard(seed: int, *overrides: str) -> float:
        method, batch = trained(seed, *overrides)
        return float(predict(method, batch).extras["weights"][:, 1].mean())

    assert min(hard(seed) - hard(seed, NO_RELIANCE) for seed in SEEDS) > 0.05


def test_reliance_raises_the_accuracy_of_the_hard_modality() -> None:
    """Of m2 alone, on clean signals, where nothing but the fused prediction trains its encoder, and not for long."""

    def alone(seed: int, *overrides: str) -> float:
        short = ("encoder.width=32", "method.unimodal_weight=0")
        method, _ = trained(seed, *short, *overrides, steps=200, epochs=10)
        signals = Signals(seed)
        signals.generator.manual_seed(999)  # the same patterns, other samples
        batch = signals.batch(2000, noisy=0)
        return accuracy(method, batch.with_available(torch.tensor([False, True]).expand(2000, 2)))

    gains = [alone(seed) - alone(seed, NO_RELIANCE) for seed in SEEDS]
    assert sum(gains) / 3 > 0.01, gains
