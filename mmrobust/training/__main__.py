"""`python -m mmrobust.training <folder>`: train the run whose configuration lies in a folder, as one of its processes.
A user's mistake and a stop are not told here, but by the process that started this one and others."""

import logging
import sys
import time
from pathlib import Path

from mmrobust.errors import Stopped, as_user_error
from mmrobust.training.children import ALONE, leave_mistake
from mmrobust.training.train import train

# What a process says that another has left. Why, the other knows: torchrun ends this one before it complains.
LOST = ("Connection reset by peer", "Connection closed by peer", "Broken pipe", "NCCL", "gloo/transport")
PATIENCE = 20  # seconds


def main() -> int:
    folder = Path(sys.argv[1])
    try:
        train(folder)
    except Stopped as stop:
        return stop.status
    except Exception as error:
        if isinstance(error, RuntimeError) and any(words in str(error) for words in LOST):
            logging.getLogger("mmrobust").exception("another process of the training is lost")
            time.sleep(PATIENCE)
            return ALONE
        mistake = as_user_error(error)
        if mistake is None:
            raise
        leave_mistake(folder, str(mistake))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
