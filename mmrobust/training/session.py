"""What a process needs before it computes, and what it has used."""

from __future__ import annotations

import logging
import resource
import sys
import warnings
from pathlib import Path

import torch
from omegaconf import DictConfig

from mmrobust.training.devices import threads

log = logging.getLogger("mmrobust")

THREADS = torch.get_num_threads()  # torch's own choice, before a run changes it


class LogFile(logging.FileHandler):
    """A log that ends nothing: what cannot be written, such as onto a full disk, is left out, and that is said once."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (of logging)
        if not self.failed:
            self.failed = True
            print(f"{self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr, flush=True)


def start_process(folder: Path, config: DictConfig) -> None:
    """What a process needs before it computes: its log file and number of threads."""
    _start_log(folder)
    torch.set_num_threads(threads(config) or THREADS)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> float:
    """MiB: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1)


def _start_log(folder: Path) -> None:
    """`log.txt` gets everything; the terminal stays with the progress bar and the result."""
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    handler = LogFile(folder / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("mmrobust", "lightning.pytorch", "lightning.fabric", "py.warnings"):
        logger = logging.getLogger(name)
        for old in list(logger.handlers):
            logger.removeHandler(old)
            old.close()
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = name == "mmrobust"
