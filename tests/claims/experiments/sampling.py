"""D: what of DMRNet's gain is the normalised linear map's, what the sampling's, what the regulariser's?"""

from __future__ import annotations

from pathlib import Path

from mmrobust.evaluation.results import read_results
from tests.claims.experiments.experiment import Claim, Experiment

EPOCHS = 20


def measure(folder: Path) -> dict[str, float]:
    """Accuracies, %."""
    results = read_results(folder)
    rows = {name: row["metrics"] for name, row in results["combinations"].items()} | {
        "average": results["aggregates"]["average"]
    }
    return {name: 100 * row["accuracy"] for name, row in rows.items()}


EXPERIMENT = Experiment(
    title="D: DMRNet's parts, trained until they have converged",
    setting=(
        f"AV-MNIST, tiny encoders, AdamW 1e-2 with a cosine, {EPOCHS} epochs. Accuracy (%) on 1,200 pairs of the test. "
        "Each row adds one part; fixed noise samples with a variance of 1 that nothing predicts."
    ),
    common=(
        "data=avmnist",
        "data.fixed_images=4",
        "optimizer.lr=1e-2",
        f"trainer.max_epochs={EPOCHS}",
    ),
    arms={
        "dropout": ("method=dropout",),
        "+ linear map and norm": (
            "method=dmrnet",
            "method.sample=false",
            "method.kl_weight=0",
            "method.hard_weight=0",
        ),
        "+ fixed noise": ("method=fixed_noise", "method.hard_weight=0"),
        "+ sampling and KL": ("method=dmrnet", "method.hard_weight=0"),
        "+ regulariser, mined by variance": ("method=dmrnet",),
        "+ regulariser, mined by loss": ("method=dmrnet", "method.mining=loss"),
    },
    measure=measure,
    shown=("image", "audio", "image+audio", "average"),
    claims=[
        Claim("DMRNet beats dropout", "average", "+ regulariser, mined by variance", "dropout"),
        Claim("the linear map alone beats dropout", "average", "+ linear map and norm", "dropout"),
        Claim("sampling beats the linear map alone", "average", "+ sampling and KL", "+ linear map and norm"),
        Claim("predicted variance beats fixed noise", "average", "+ sampling and KL", "+ fixed noise"),
        Claim(
            "the regulariser adds to sampling",
            "average",
            "+ regulariser, mined by variance",
            "+ sampling and KL",
        ),
        Claim(
            "mined by loss, it adds to sampling",
            "average",
            "+ regulariser, mined by loss",
            "+ sampling and KL",
        ),
    ],
)
