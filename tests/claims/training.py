"""Small trainings for the papers' claims: in this process, without files, the same numbers every time."""

from __future__ import annotations

import logging
import warnings

import torch
from lightning import Trainer

from mmrobust.config.compose import compose_config
from mmrobust.data.base import DataModule
from mmrobust.evaluation.combinations import CombinationScores, Results
from mmrobust.methods.base import Method
from mmrobust.training.session import build_method, open_data


def train(*overrides: str) -> tuple[Method, DataModule]:
    """Train what the overrides compose on data=synthetic, with encoder=tiny by default, and return it in eval mode."""
    config = compose_config(["data=synthetic", "data.batch_size=64", "trainer.accelerator=cpu", *overrides])
    data = open_data(config)
    method = build_method(config, data.spec)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=config.trainer.max_epochs,
            gradient_clip_val=config.trainer.gradient_clip_val if method.automatic_optimization else None,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        trainer.fit(method, datamodule=data)
    return method.eval(), data


def evaluate(method: Method, data: DataModule, split: str = "test") -> Results:
    """The results of every combination on a split."""
    scores = CombinationScores(method.task, method.modalities, method.combinations(), keep_predictions=True)
    with torch.inference_mode():
        for batch in data.loader(split):
            scores.update(method, batch)
    return scores.finish()


def accuracies(method: Method, data: DataModule, split: str = "test") -> dict[str, float]:
    """Accuracy of every served combination, and their average."""
    results = evaluate(method, data, split)
    found = {name: row["metrics"]["accuracy"] for name, row in results.combinations.items() if row}
    average = results.aggregates["average"]["accuracy"]
    assert average is not None
    return found | {"average": average}
