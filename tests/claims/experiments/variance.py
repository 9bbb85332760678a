"""V: does the combination with the larger predicted variance hold the weaker modality (DMRNet)?"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional import spearman_corrcoef

from mmrobust.methods.dmrnet import DMRNet
from mmrobust.training.session import open_data, open_trained
from tests.claims.experiments.experiment import Claim, Experiment

ALL = list(range(8))
WEAK = {"m1": "data.clarity=[0.4,0.95]", "m2": "data.clarity=[0.95,0.4]"}


def curvature(logits: Tensor, weight: Tensor) -> Tensor:
    """Of the cross-entropy of a linear head in its input, the mean of the Hessian's diagonal: (R, C), (C, D) -> (R,)."""
    p = logits.softmax(1)
    return (p @ weight**2 - (p @ weight) ** 2).mean(1)


@torch.no_grad()
def measure(folder: Path) -> dict[str, float]:
    """On the test split, with BatchNorm's statistics of the batch, as the mining sees them in training."""
    trained = open_trained(folder)
    config, method, data = trained.config, trained.method, open_data(trained.config)
    assert isinstance(method, DMRNet)
    method.train()
    masks = torch.tensor([[True, False], [False, True], [True, True]])
    rows = []
    for batch in data.loader("test"):
        features = {m: x.repeat(3, 1) for m, x in method.encode(batch).items()}
        extras = method.fuse(features, masks.repeat_interleave(len(batch), 0)).extras
        logits = method.predict(extras["mean"]).logits
        loss = F.cross_entropy(logits, batch.target.repeat(3), reduction="none")
        variance = extras["log_variance"].exp().mean(1)
        rows.append(
            torch.stack([variance, loss, curvature(logits, method.head.weight)]).unflatten(1, (3, -1))
        )
    variance, loss, curved = torch.cat(rows, 2)[:, :2].unbind(0)  # (combination m1 or m2, samples)
    weak = list(WEAK.values()).index(f"data.clarity={list(config.data.clarity)}".replace(" ", ""))
    return {
        "variance weak": float(variance[weak].mean()),
        "variance strong": float(variance[1 - weak].mean()),
        "excess": float(variance[weak].mean() - variance[1 - weak].mean()),
        "loss weak": float(loss[weak].mean()),
        "loss strong": float(loss[1 - weak].mean()),
        "rho loss": float(spearman_corrcoef(variance.flatten(), loss.flatten())),
        "rho curvature": float(spearman_corrcoef(variance.flatten(), curved.flatten())),
        "mined": float(method.mining.hard_names == [f"m{weak + 1}"]),
    }


def arm(weak: str, epochs: int, *overrides: str) -> tuple[str, ...]:
    return WEAK[weak], f"trainer.max_epochs={epochs}", *overrides


EXPERIMENT = Experiment(
    title="V: DMRNet's variance and hardness",
    setting=(
        "Two image modalities of eight classes, generated; the weak one shows a decoy in 60 % of the samples, the other in "
        "5 %; 2,048 samples, the regulariser off. Mean variances, rank correlations over samples with one modality, and "
        "whether the weak modality is mined (1 is always)."
    ),
    common=(
        "method=dmrnet",
        "method.hard_weight=0",
        "data=synthetic",
        "data.seed={seed}",
        "data.kinds=[image]",
        f"data.groups=[{ALL},{ALL}]".replace(" ", ""),
        "data.variants=1",
        "data.shared=0",
        "selection=last",
    ),
    arms={
        f"{weak} weak, KL {kl}, {epochs} epochs": arm(weak, epochs, f"method.kl_weight={kl}")
        for kl in (1e-3, 6.4e-2)
        for epochs in (6, 30)
        for weak in WEAK
    }
    | {f"{weak} weak, mined by loss": arm(weak, 6, "method.mining=loss") for weak in WEAK},
    measure=measure,
    shown=("variance weak", "variance strong", "rho loss", "rho curvature", "mined"),
    claims=[
        Claim(
            f"{weak} weak, KL {kl}, {epochs} epochs: the weak one has the larger variance",
            "excess",
            f"{weak} weak, KL {kl}, {epochs} epochs",
            margin=0.02,
        )
        for kl in (1e-3, 6.4e-2)
        for epochs in (6, 30)
        for weak in WEAK
    ]
    + [
        Claim(
            f"{weak} weak: the loss finds it",
            "mined",
            f"{weak} weak, mined by loss",
            margin=1,
        )
        for weak in WEAK
    ],
)
