"""U: do weights that follow estimated noise help (UDML), where there is room for them to?"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.functional import spearman_corrcoef

from mmrobust.batch import Batch
from mmrobust.config.compose import compose_config
from mmrobust.methods.udml import UDML
from mmrobust.training.session import open_data, open_trained
from tests.claims.experiments.experiment import Claim, Experiment

MODALITIES = ("image", "audio")
EPOCHS = 16
COMMON = (
    "method=udml",
    "data=avmnist",
    "data.image_noise=0",
    "data.audio_snr=null",
    "data.fixed_images=4",
    "optimizer.lr=1e-2",
    f"trainer.max_epochs={EPOCHS}",
    "selection=last",
)
PATTERN = "noise/pattern@noise.test"
LOUD = (f"{PATTERN}=gaussian", "noise.test.level=10", "noise.test.probability=1")
TESTS = {
    "clean": (),
    "gaussian": (f"{PATTERN}=gaussian", "noise.test.level=10"),
    "salt": (f"{PATTERN}=salt", "noise.test.level=10"),
}
LEVELS = (f"{PATTERN}=udml_v2", "noise.test.start=0", "noise.test.epochs=1", "noise.test.probability=1")


@cache
def batches(*changes: str) -> list[Batch]:
    """The test split under some noise, the same for all arms and seeds."""
    return list(open_data(compose_config([*COMMON, *changes])).loader("test"))


def one_noisy(clean: Batch, noisy: Batch, modality: str) -> Batch:
    """Samples of which one modality alone is noisy."""
    column = torch.tensor([m == modality for m in clean.modalities])
    inputs = clean.inputs | {modality: noisy.inputs[modality]}
    return replace(
        clean, inputs=inputs, noise_level=torch.where(column, noisy.noise_level, clean.noise_level)
    )


def correct(method: UDML, batch: Batch) -> Tensor:
    """Which samples are classified with weights as estimated, from equal noise, and from the true levels: (3, B)."""
    features, true = method.encode(batch), 1 + batch.noise_level
    stds: list[Tensor | None] = [None, torch.ones_like(true), true]
    rows = []
    for std in stds:
        given = {m: f if std is None else f | {"std": std[:, i]} for i, (m, f) in enumerate(features.items())}
        rows.append(method.fuse(given, batch.available).logits.argmax(1) == batch.target)
    return torch.stack(rows).float()


@torch.no_grad()
def measure(folder: Path) -> dict[str, float]:
    """Accuracies, %, and rank correlations of the estimated with the true level."""
    method = open_trained(folder).method
    assert isinstance(method, UDML)
    tests = {name: batches(*changes) for name, changes in TESTS.items()}
    pairs = list(zip(tests["clean"], batches(*LOUD), strict=True))
    tests |= {f"{m} noisy": [one_noisy(*pair, m) for pair in pairs] for m in MODALITIES}
    found: dict[str, float] = {}
    for name, test in tests.items():
        shares = 100 * torch.cat([correct(method, batch) for batch in test], 1).mean(1)
        own, equal, true = shares.tolist()
        found |= {name: own, f"{name} equal": equal, f"{name} true": true}
    noisy = ("gaussian", "salt", *(f"{m} noisy" for m in MODALITIES))
    for kind in ("", " equal", " true"):
        found[f"noisy{kind}"] = sum(found[f"{name}{kind}"] for name in noisy) / len(noisy)
    found["estimate gain"] = found["noisy"] - found["noisy equal"]
    found["room"] = found["noisy true"] - found["noisy equal"]
    levels = batches(*LEVELS)
    estimated = [method.encode(batch) for batch in levels]
    for i, m in enumerate(MODALITIES):
        level = torch.cat([features[m]["level"] for features in estimated])
        found[f"rho {m}"] = float(
            spearman_corrcoef(level, torch.cat([batch.noise_level[:, i] for batch in levels]))
        )
    return found


STATIC = ("method.uncertainty=none", "method.reliance.use=false")
EXPERIMENT = Experiment(
    title="U: UDML's weights under noise",
    setting=(
        f"AV-MNIST without noise of its own, tiny encoders, AdamW 1e-2 with a cosine, {EPOCHS} epochs, training noise from "
        "half of them. Accuracy (%) on 1,200 pairs: clean; noisy, the mean over four tests: Gaussian noise of level 10 with "
        "probability 0.5, salt of level 10 (never seen in training), the image alone at level 10, the sound alone at level "
        "10. Room: what true levels as weights gain over equal ones in the same network; estimate gain: what the estimated "
        "ones gain. Rho: rank correlation of estimated and true level, 0 to 11. Clean encoders rest when the noise begins."
    ),
    common=COMMON,
    arms={
        "full": (),
        "without estimator": ("method.uncertainty=none",),
        "without reliance": ("method.reliance.use=false",),
        "static": STATIC,
        "clean encoders": ("method=clean_encoders",),
        "clean encoders, static": ("method=clean_encoders", *STATIC),
    },
    measure=measure,
    shown=("clean", "noisy", "room", "estimate gain", "rho image", "rho audio"),
    claims=[
        Claim("true levels help (room)", "room", "full"),
        Claim("estimated levels help", "estimate gain", "full"),
        Claim("dynamic beats static weights", "noisy", "full", "static"),
        Claim("the estimator helps", "noisy", "full", "without estimator"),
        Claim("reliance helps", "noisy", "full", "without reliance"),
        Claim("clean encoders: true levels help (room)", "room", "clean encoders"),
        Claim("clean encoders: estimated levels help", "estimate gain", "clean encoders"),
        Claim("clean encoders: dynamic beats static", "noisy", "clean encoders", "clean encoders, static"),
    ],
)
