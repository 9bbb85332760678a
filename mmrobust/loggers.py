"""Where metrics go: a CSV file that survives interruptions, and Weights & Biases."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from mmrobust.config import NOT_IN_RECIPE, config_hash
from mmrobust.errors import UserError


class MetricsFile(loggers.logger.Logger):
    """`metrics.csv`: a row for every step at which something was logged, a column for every metric.

    Unlike Lightning's CSV logger it keeps what an interrupted run had written.

    Args:
        save_dir: folder of the run.
    """

    name, version = "metrics", ""

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        self.columns: list[str] = ["step"]
        self.written = 0  # rows that the file has already

    def keep(self, steps: int) -> None:
        """Take over what the file has of the first `steps` steps; the rest will be logged again."""
        if self.path.is_file():
            with self.path.open(newline="") as file:
                lines = [row for row in csv.DictReader(file) if None not in row.values()]  # none cut short
            self.rows = [row for row in lines if row["step"].isdigit() and int(row["step"]) < steps]
            self.rows = [{k: v for k, v in row.items() if v != ""} for row in self.rows]
            self.columns = list(lines[0]) if lines else ["step"]

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """They lie in the run's config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {name: value for name, value in metrics.items() if name != "epoch"}
        if len(self.rows) == self.written or int(self.rows[-1]["step"]) != step:
            self.rows.append({"step": step})
        self.rows[-1] |= values

    @rank_zero_only
    def save(self) -> None:
        """Append the new rows; with a new column the file is written anew, whole or not at all."""
        new = self.rows[self.written :]
        columns = self.columns + sorted({key for row in new for key in row} - set(self.columns))
        if columns == self.columns and self.written:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, columns).writerows(new)
        elif new:
            part = self.path.with_name("metrics.csv.part")
            with part.open("w", newline="") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(self.rows)
            part.replace(self.path)
        self.columns, self.written = columns, len(self.rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()


MODES = ("auto", "online", "offline", "disabled", "dryrun")
CONNECT_SECONDS = 20  # then the run is offline
UPLOAD_SECONDS = 600  # at the end of a run; what is left stays on disk for `wandb sync`


class WandbLogger(loggers.WandbLogger):
    """Lightning's logger, with names from the configuration and the table over combinations.

    Lightning finalizes after `fit` and again after `test`; the W&B run goes on until its results are
    logged or something fails, and then ends, so that a sweep's next job starts another.

    Args:
        save_dir: folder of our run; W&B's lies in its `wandb/`.
        name: null for `<method> <data> seed <n>`.
        group: null for one that runs share if they differ in the seed alone.
        mode: auto (online if W&B knows an API key), online or offline; `WANDB_MODE` wins.
        project, entity, tags: as W&B takes them.

    Raises:
        UserError: wandb is not installed, or there is no such mode.
    """

    def __init__(
        self,
        save_dir: str,
        project: str,
        entity: str | None,
        name: str | None,
        group: str | None,
        mode: str,
        tags: list[str],
    ) -> None:
        try:
            super().__init__(save_dir=save_dir, project=project)
        except ModuleNotFoundError as error:
            raise UserError("logger=wandb needs wandb: pip install 'mmrobust[wandb]'") from error
        self.mode = os.environ.get("WANDB_MODE") or mode
        if self.mode not in MODES:
            raise UserError(f"logger.wandb.mode or WANDB_MODE is {self.mode}; choose of {', '.join(MODES)}")
        self.arguments: dict[str, Any] = {"dir": save_dir, "project": project, "entity": entity}
        self.arguments |= {"name": name, "group": group, "tags": tags}
        self.complete = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, started on first use."""
        if self._experiment is None:
            self._experiment = run = self._start()
            run.define_metric("trainer/global_step")
            run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return self._experiment

    def _start(self) -> Any:
        import wandb

        if wandb.run is not None:  # of a job that broke off between training and results
            _finish(wandb.run, exit_code=1)
        settings = wandb.Settings(silent=True, init_timeout=CONNECT_SECONDS, finish_timeout_raises=True)
        settings.finish_timeout = UPLOAD_SECONDS
        wandb.setup(settings)
        Path(self.arguments["dir"]).mkdir(parents=True, exist_ok=True)
        mode: Any = self.mode
        reason = f"mode={mode}"
        try:
            if mode in ("auto", "online"):
                known = wandb.login(prompt=False, verify=False)
                mode, reason = ("online", "") if known else ("offline", "no API key: `wandb login` keeps one")
            run = wandb.init(**self.arguments, mode=mode)
        except wandb.Error as error:
            reason = f"cannot go online: {error}".partition("\n")[0]
            run = wandb.init(**self.arguments, mode="offline")
        if run.offline:
            print(f"W&B is offline ({reason}); to upload this run: wandb sync {run.sync_dir}", flush=True)
        return run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """The first call brings the resolved configuration; names that are null follow from it."""
        if self._experiment is None and isinstance(params, dict) and "choices" in params:
            method, data = (params["choices"][group] for group in ("method", "data"))
            recipe = config_hash(OmegaConf.create(params), NOT_IN_RECIPE)
            self.arguments["name"] = self.arguments["name"] or f"{method} {data} seed {params['seed']}"
            self.arguments["group"] = self.arguments["group"] or f"{method} {data} {recipe}"
            self.arguments["job_type"] = method
        super().log_hyperparams(params)

    @rank_zero_only
    def log_results(self, results: Mapping[str, Any], folder: Path) -> None:
        """The combinations as a table and as a picture, the panel; aggregates and cost as summary."""
        import wandb

        rows = {name: row or {"n": None, "metrics": {}} for name, row in results["combinations"].items()}
        metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row["metrics"]))
        cells = [[name, row["n"], *map(row["metrics"].get, metrics)] for name, row in rows.items()]
        table = wandb.Table(columns=["combination", "n", *metrics], data=cells)
        pictures = {f"test/{name}": folder / f"{name}.png" for name in ("combinations", "panel")}
        shown = {key: wandb.Image(str(path)) for key, path in pictures.items() if path.is_file()}
        self.experiment.log({"test/combinations_table": table, **shown})
        summary = {f"test/{name}": values for name, values in results["aggregates"].items()}
        summary["cost"] = results.get("cost", {})
        for name, values in summary.items():
            self.experiment.summary.update({f"{name}/{key}": v for key, v in values.items() if v is not None})
        self.complete = True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the W&B run if its results are logged or `status` is not success. May be called again."""
        super().finalize(status)
        if self._experiment is not None and (self.complete or status != "success"):
            run, self._experiment = self._experiment, None
            _finish(run, exit_code=int(status == "failed"))


def _finish(run: Any, exit_code: int) -> None:
    try:
        run.finish(exit_code=exit_code)
    except TimeoutError:
        print(f"W&B's upload takes too long; to complete it: wandb sync {run.sync_dir}", flush=True)
