"""What is to be known of single keys of the configuration. Imports no torch."""

from __future__ import annotations

# What does not change the numbers of a run.
NOT_IN_HASH = (
    "paths",
    "logger",
    "callbacks.learning_rate",
    "callbacks.gradient_norm",
    "choices",
    "threads",
    "launch",
    "keep",
    "test_rates",
    "plan",
    "sweep",
    "study",
    "allow",
    "data.root",
    "data.cache",
    "data.manifest",  # its content counts, not its name
    "data.inferred",  # from what counts
    "data.workers",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
)

# Further keys that runs of one row of a table may differ in.
NOT_IN_RECIPE = ("seed", "data.run_seed", "method.seed")

# Which checkpoints stay when a run is complete.
KEEP = ("best", "last", "all", "none")
