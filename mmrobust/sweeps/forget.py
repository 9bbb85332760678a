"""What Hydra keeps of every job, and nobody reads. Imports no torch."""

from __future__ import annotations

from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Forget(Callback):
    """Drops a job's configuration when it has ended: Hydra's launchers hold two copies of it, a third of a MiB, until the
    whole sweep is over."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **keys: Any) -> None:
        job_return.cfg = job_return.hydra_cfg = None
