"""M: does margin-aware distillation, does modality-aware regularisation raise weak combinations (MMANet)?"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from mmrobust.evaluation.results import read_results
from tests.claims.experiments.experiment import Claim, Experiment

ALL = list(range(8))
WEAK = ("m1", "m2", "m1+m2")
OFF = ("method.distillation_weight=0", "method.regularization_weight=0")


def measure(folder: Path) -> dict[str, float]:
    """Accuracies, %."""
    results = read_results(folder)
    accuracy = {name: 100 * row["metrics"]["accuracy"] for name, row in results["combinations"].items()}
    singles = fmean(accuracy[m] for m in ("m1", "m2", "m3"))
    found = {"weak": fmean(accuracy[name] for name in WEAK), "singles": singles, "full": accuracy["m1+m2+m3"]}
    return found | {"average": fmean(accuracy.values())}


def arm(*overrides: str) -> tuple[str, ...]:
    return "method=mmanet", f"method.weak=[{','.join(WEAK)}]", *overrides


EXPERIMENT = Experiment(
    title="M: MMANet's two losses",
    setting=(
        "Three image modalities of eight classes, generated; m1 and m2 have twelve patterns a class, m3 one, all show the "
        "true class in 95 %. 1,024 samples, a trunk of two stages, AdamW 5e-3 with a cosine, 30 epochs. Accuracy (%): weak "
        "is the mean over m1, m2 and m1+m2, which are regularised. MAD: margin-aware distillation of the trunk's map, MAR: "
        "regularisation, each with its weight."
    ),
    common=(
        "data=synthetic",
        "data.seed={seed}",
        "data.num_modalities=3",
        "data.kinds=[image]",
        f"data.groups=[{ALL},{ALL},{ALL}]".replace(" ", ""),
        "data.variants=[12,12,1]",
        "data.clarity=0.95",
        "data.num_train=1024",
        "fusion=trunk",
        "encoder.width=32",
        "optimizer.lr=5e-3",
        "trainer.max_epochs=30",
    ),
    arms={
        "dropout": ("method=dropout",),
        "dropout, learning rate doubled": ("method=dropout", "optimizer.lr=1e-2"),
        "MAD 4": arm(*OFF, "method.distillation_weight=4"),
        "MAD 30": arm(*OFF, "method.distillation_weight=30"),
        "MAR 0.5": arm(*OFF, "method.regularization_weight=0.5"),
        "MAR 2": arm(*OFF, "method.regularization_weight=2"),
        "MAR 0.5 as released": arm(
            *OFF, "method.regularization_weight=0.5", "method.as_released.unmasked_regularization=true"
        ),
        "MAD 4 and MAR 0.5": arm("method.distillation_weight=4", "method.regularization_weight=0.5"),
    },
    measure=measure,
    shown=("weak", "singles", "full", "average"),
    claims=[
        *(
            Claim(f"{name} raises the regularised combinations", "weak", name, "dropout", 1.0)
            for name in ("MAR 0.5", "MAR 2", "MAR 0.5 as released", "MAD 4 and MAR 0.5")
        ),
        *(
            Claim(f"{name} raises single modalities", "singles", name, "dropout", 0.5)
            for name in ("MAD 4", "MAD 30")
        ),
        Claim(
            "twice the learning rate raises them", "weak", "dropout, learning rate doubled", "dropout", 1.0
        ),
    ],
)
