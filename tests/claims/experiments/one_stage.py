"""O: is it better to learn transfer and fusion together than one after the other (OSMD)?"""

from __future__ import annotations

from pathlib import Path

from mmrobust.evaluation.results import read_results
from tests.claims.experiments.experiment import Claim, Experiment

ALL = list(range(8))
EPOCHS, TEACHER = 30, 15
SETTINGS = {
    # m2 shows the decoy that m1 shows: it tells more of m1 than the label does.
    "shared decoys": ("data.clarity=[0.6,0.6]", "data.shared=1.0"),
    "right labels": ("data.clarity=[0.6,1.0]", "data.shared=0"),
}
ARMS = {
    "m1 alone": (
        "method=fusion",
        "missing=fixed",
        "missing.train.combination=[m1]",
        "missing/pattern@missing.test=fixed",
        "missing.test.combination=[m1]",
        f"trainer.max_epochs={EPOCHS}",
    ),
    "joint": ("method=osmd", "method.privileged=[m2]", f"trainer.max_epochs={EPOCHS}"),
    "joint, concatenated": (
        "method=osmd",
        "method.privileged=[m2]",
        "method.aggregation=concat",
        f"trainer.max_epochs={EPOCHS}",
    ),
    "independent transfer": (
        "method=independent_transfer",
        "method.privileged=[m2]",
        f"trainer.max_epochs={EPOCHS}",
    ),
    "teacher first": (
        "method=osmd",
        "method.privileged=[m2]",
        "method.stages=teacher_first",
        f"method.teacher_epochs={TEACHER}",
        f"trainer.max_epochs={TEACHER + EPOCHS}",
    ),
    "sequential": (
        "method=osmd",
        "method.privileged=[m2]",
        "method.stages=sequential",
        f"method.teacher_epochs={TEACHER}",
        f"method.transfer_epochs={EPOCHS}",
        f"trainer.max_epochs={TEACHER + 2 * EPOCHS}",
    ),
}
# The cosine has fallen to 0.35 when the last stage begins: with this it begins at 1e-2, as in the other arms.
ARMS["sequential, fusion from 1e-2"] = (*ARMS["sequential"], "optimizer.lr=2.9e-2")


def measure(folder: Path) -> dict[str, float]:
    return {"m1": 100 * read_results(folder)["combinations"]["m1"]["metrics"]["accuracy"]}


EXPERIMENT = Experiment(
    title="O: OSMD's single stage",
    setting=(
        "Accuracy (%) of m1 alone, twelve patterns a class; m2, privileged, has one. Vectors, generated, 1,024 samples, "
        f"AdamW 1e-2 with a cosine, {EPOCHS} epochs of transfer and of fusion in every arm, {TEACHER} more for a teacher "
        "that comes first. Shared decoys: where m1 shows another class, m2 shows the same one. Right labels: m1 shows "
        "another class in 40 %, m2 always the true one."
    ),
    common=(
        "data=synthetic",
        "data.seed={seed}",
        f"data.groups=[{ALL},{ALL}]".replace(" ", ""),
        "data.kinds=[vector]",
        "data.size=64",
        "data.variants=[12,1]",
        "data.num_train=1024",
        "encoder.width=32",
        "optimizer.lr=1e-2",
    ),
    arms={
        f"{setting}: {name}": (*data, *keys)
        for setting, data in SETTINGS.items()
        for name, keys in ARMS.items()
    },
    measure=measure,
    shown=("m1",),
    claims=[
        Claim(f"{setting}: {text}", "m1", f"{setting}: {better}", f"{setting}: {than}", margin)
        for setting in SETTINGS
        for text, better, than, margin in (
            ("joint beats m1 alone", "joint", "m1 alone", 0.5),
            ("joint beats independent transfer", "joint", "independent transfer", 1.0),
            ("joint beats transfer, then fusion", "joint", "sequential", 1.0),
            ("the same, fusion from 1e-2", "joint", "sequential, fusion from 1e-2", 1.0),
            ("joint beats a teacher that comes first", "joint", "teacher first", 1.0),
            ("translation beats concatenation", "joint", "joint, concatenated", 0.5),
        )
    ],
)
