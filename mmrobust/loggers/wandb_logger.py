"""The logger that sends a run's metrics to Weights & Biases."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from mmrobust.config.wandb_rules import CHECKPOINTS, MODES
from mmrobust.errors import UserError
from mmrobust.loggers import wandb_run
from mmrobust.loggers.wandb_run import CHECKPOINT_SECONDS, OF_A_SWEEP, UPLOAD_SECONDS
from mmrobust.loggers.wandb_segment import STEP, Segment
from mmrobust.tasks.metric import metric_named


class WandbLogger(loggers.WandbLogger):
    """Lightning's logger, with names from the configuration and the table over combinations.

    Lightning finalizes after `fit` and again after `test`; the W&B run goes on until its results are
    logged or something fails, and then ends, so that a sweep's next job starts another. An interrupted run that is
    resumed goes on with the same W&B run, see `wandb_segment.Segment`.

    Args:
        save_dir: folder of our run; W&B's lies in its `wandb/`.
        name, group, job_type: null for those of `wandb_run.names`.
        mode: auto (online if W&B knows an API key), online or offline; `WANDB_MODE` wins.
        checkpoint: none, or best: the checkpoint that was tested becomes an artifact.
        project, entity, tags: as W&B takes them.

    Raises:
        UserError: there is no such mode or checkpoint.
    """

    def __init__(
        self,
        save_dir: str,
        project: str,
        entity: str | None,
        name: str | None,
        group: str | None,
        job_type: str | None,
        mode: str,
        checkpoint: str,
        tags: list[str],
    ) -> None:
        super().__init__(save_dir=save_dir, project=project)
        self.mode = os.environ.get("WANDB_MODE") or mode
        for key, value, known in (("mode", self.mode, MODES), ("checkpoint", checkpoint, CHECKPOINTS)):
            if value not in known:
                raise UserError(f"logger.wandb.{key} is {value}; choose of {', '.join(known)}")
        self.checkpoint = checkpoint
        self.arguments: dict[str, Any] = {"dir": save_dir, "project": project, "entity": entity}
        self.arguments |= {"name": name, "group": group, "job_type": job_type, "tags": tags}
        self.hashed = ""  # hash of the configuration, once it is known
        self.complete = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, which starts at the first access."""
        if self._experiment is None:
            folder = Path(self.arguments["dir"])
            folder.mkdir(parents=True, exist_ok=True)
            if self.arguments["job_type"] == "teacher":  # an agent's run is the student's
                for name in OF_A_SWEEP:
                    os.environ.pop(name, None)
            self.segment = Segment(folder, self.hashed)
            seconds = UPLOAD_SECONDS if self.checkpoint == "none" else CHECKPOINT_SECONDS
            arguments = {**self.arguments, "id": self.segment.id, "resume": "allow"}
            self._experiment = run = wandb_run.start_run(arguments, self.mode, seconds)
            run.define_metric(STEP)
            run.define_metric("*", step_metric=STEP, step_sync=True)
            if self.mode != "disabled":
                self.segment.begin(run)
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """The first call brings the resolved configuration; names that are null follow from it."""
        if self._experiment is None and isinstance(params, dict) and "choices" in params:
            given = {key: value for key, value in self.arguments.items() if value is not None}
            self.arguments |= wandb_run.names(params) | given
            params = wandb_run.flat_config(params)
            self.hashed = params["config_hash"]
        super().log_hyperparams(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of steps that the W&B run does not have yet."""
        run = self.experiment
        if step is None or self.mode == "disabled":
            super().log_metrics(metrics, step)
        elif fresh := self.segment.new(metrics, step):
            with wandb_run.not_fatal(run):
                self.segment.log(run, fresh, step)

    @rank_zero_only
    def log_results(self, results: Mapping[str, Any], folder: Path, checkpoint: Path) -> None:
        """The combinations as a table and as a picture, the panel; aggregates and cost as summary; on request the
        checkpoint that was tested."""
        import wandb

        rows = {name: row or {"n": None, "metrics": {}} for name, row in results["combinations"].items()}
        metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row["metrics"]))
        cells = [[name, row["n"], *map(row["metrics"].get, metrics)] for name, row in rows.items()]
        table = wandb.Table(columns=["combination", "n", *metrics], data=cells)
        pictures = {f"test/{name}": folder / f"{name}.png" for name in ("combinations", "panel")}
        shown = {key: wandb.Image(str(path)) for key, path in pictures.items() if path.is_file()}
        summary = {f"test/{name}": values for name, values in results["aggregates"].items()}
        summary["cost"] = results.get("cost", {})
        summary["direction"] = {name: metric_named(name, results).direction for name in metrics}
        run = self.experiment
        with wandb_run.not_fatal(run):
            for name, values in summary.items():
                run.summary.update({f"{name}/{key}": v for key, v in values.items() if v is not None})
            run.log({**shown, STEP: self.segment.step})
            run.log({"test/combinations_table": table, STEP: self.segment.step})  # online it asks the server
            if self.checkpoint == "best" and checkpoint.is_file():
                run.log_artifact(_artifact(results, checkpoint), aliases=["best"])
        self.complete = True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the W&B run if its results are logged or `status` is not success. May be called again."""
        super().finalize(status)
        if self._experiment is not None and (self.complete or status != "success"):
            run, self._experiment = self._experiment, None
            wandb_run.finish_run(run, exit_code=int(status == "failed"))
            if self.mode != "disabled":
                self.segment.end()


def _artifact(results: Mapping[str, Any], checkpoint: Path) -> Any:
    """The checkpoint with what it is; versions of one name are runs of one configuration."""
    import wandb

    identity, primary = results["identity"], results["primary"]
    metadata = {key: identity[key] for key in ("method", "data", "seed", "config_hash", "recipe_hash")}
    metadata |= {"selection": results["protocol"]["selection"], "primary": primary["metric"]}
    metadata[f"test/average/{primary['metric']}"] = results["aggregates"]["average"][primary["metric"]]
    name = re.sub(r"[^\w.-]", "_", f"{identity['method']}_{identity['data']}_{identity['config_hash']}")
    artifact = wandb.Artifact(name, type="model", metadata=metadata)
    artifact.add_file(str(checkpoint), policy="immutable")  # it stays where it is: no copy is needed
    return artifact
