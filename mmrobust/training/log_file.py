"""`log.txt` of a run's folder."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path


class LogFile(logging.FileHandler):
    """A log that ends nothing: what cannot be written, such as onto a full disk, is left out, and that is said once."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (of logging)
        if not self.failed:
            self.failed = True
            print(f"{self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr, flush=True)


def start_log(folder: Path) -> None:
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
