"""Weights & Biases: online with a login, else offline. Never asks, never hangs, loses nothing."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from mmrobust.config import config_hash
from mmrobust.errors import UserError

if TYPE_CHECKING:
    from wandb import Run

# What changes with `seed`: runs that differ in nothing else are one group.
FOLLOWS_SEED = ("seed", "method.seed", "data.run_seed", "method.teacher.run")
CONNECT_SECONDS = 20  # then the run is offline
UPLOAD_SECONDS = 600  # at the end of a run; what is left stays on disk for `wandb sync`


class WandbLogger(loggers.WandbLogger):
    """Lightning's logger with names from the configuration, the combinations and an end of its own.

    A run lasts until `log_results` and `finalize`, so that `fit` and `test` write into the same one, or
    until either fails. The next run of a sweep is a new one in the same process.

    Args:
        save_dir: folder of our run; W&B's goes into its `wandb/`.
        name: null for `<method> <data> seed <n>`.
        group: null for what runs share that differ in the seed alone.
        mode: auto (online if W&B finds credentials), online or offline; `WANDB_MODE` wins.
        project, entity, tags: as W&B takes them.

    Raises:
        UserError: wandb is not installed, or W&B refuses these arguments.
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
            super().__init__(save_dir=save_dir, project=project, name=name)
        except ModuleNotFoundError as error:
            raise UserError("logger=wandb needs wandb: pip install 'mmrobust[wandb]'") from error
        self.mode = os.environ.get("WANDB_MODE") or mode
        self.arguments = {"dir": save_dir, "project": project, "entity": entity, "tags": tags}
        self.arguments |= {"name": name, "group": group, "reinit": "finish_previous"}
        self.complete = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """W&B's run, started on first use."""
        if self._experiment is None:
            self._experiment = run = self._start()
            run.define_metric("trainer/global_step")
            run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return self._experiment

    def _start(self) -> Run:
        import wandb

        settings = wandb.Settings(
            silent=True,
            init_timeout=CONNECT_SECONDS,
            finish_timeout=UPLOAD_SECONDS,
            finish_timeout_raises=True,
        )
        Path(self.arguments["dir"]).mkdir(parents=True, exist_ok=True)
        mode, reason = self.mode, f"mode {self.mode}"
        try:
            wandb.setup(settings)
            if mode in ("auto", "online") and not wandb.login(prompt=False, verify=False):
                mode, reason = "offline", "no API key; `wandb login` stores one"
            run = wandb.init(**self.arguments, settings=settings, mode="online" if mode == "auto" else mode)
        except wandb.Error as error:
            reason = f"cannot go online: {str(error).splitlines()[0]}"
            try:
                run = wandb.init(**self.arguments, settings=settings, mode="offline")
            except wandb.Error as error:
                raise UserError(f"logger.wandb: {error}") from error
        if run.offline:
            print(f"W&B is offline ({reason}); to upload this run: wandb sync {run.sync_dir}", flush=True)
        return run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """The first call gives the resolved configuration, from which names that are null follow."""
        if self._experiment is None and isinstance(params, Mapping) and "choices" in params:
            choices, config = params["choices"], OmegaConf.create(dict(params))
            for key in FOLLOWS_SEED:
                if OmegaConf.select(config, key) is not None:
                    OmegaConf.update(config, key, None)
            label = f"{choices['method']} {choices['data']}"
            self.arguments["name"] = self.arguments["name"] or f"{label} seed {params['seed']}"
            self.arguments["group"] = self.arguments["group"] or f"{label} {config_hash(config)}"
            self.arguments["job_type"] = choices["method"]
        super().log_hyperparams(params)

    @rank_zero_only
    def log_results(self, results: Mapping[str, Any], folder: Path) -> None:
        """The table over combinations, its picture, and the aggregates and cost as summary."""
        import wandb

        rows = {name: row or {"n": None, "metrics": {}} for name, row in results["combinations"].items()}
        metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row["metrics"]))
        table = wandb.Table(
            columns=["combination", "n", *metrics],
            data=[[name, row["n"], *map(row["metrics"].get, metrics)] for name, row in rows.items()],
        )
        picture = wandb.Image(str(folder / "combinations.png"))
        self.experiment.log({"test/combinations_table": table, "test/combinations": picture})
        summary = {f"test/{name}": values for name, values in results["aggregates"].items()}
        summary |= {"cost": results.get("cost", {})}
        self.experiment.summary.update(
            {f"{name}/{key}": value for name, values in summary.items() for key, value in values.items()}
        )
        self.complete = True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End W&B's run after its results or a failure; after `fit` and `test` it goes on."""
        super().finalize(status)
        if self._experiment is None or (status == "success" and not self.complete):
            return
        run, self._experiment = self._experiment, None
        try:
            run.finish(exit_code=int(status == "failed"))
        except TimeoutError:
            print(f"W&B's upload takes too long; to complete it: wandb sync {run.sync_dir}", flush=True)
