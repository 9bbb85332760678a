"""Letter -> experiment, the quickest first."""

from __future__ import annotations

from tests.claims.experiments import margin, noise, one_stage, sampling, variance
from tests.claims.experiments.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    "V": variance.EXPERIMENT,
    "O": one_stage.EXPERIMENT,
    "M": margin.EXPERIMENT,
    "U": noise.EXPERIMENT,
    "D": sampling.EXPERIMENT,
}
