"""`python -m mmrobust.training <folder>`: train the run in a folder, as one of its ranks.

This process does not print a UserError or a stop: the parent, which started all ranks, prints it once.
"""

import logging
import sys
import time
from pathlib import Path

from mmrobust.errors import Stopped, as_user_error
from mmrobust.training.children import ALONE, leave_mistake
from mmrobust.training.train import train

# Words of errors that a rank raises when another one has died. The other rank has the cause, so this one waits, for
# PATIENCE seconds, until torchrun ends it.
LOST = ("Connection reset by peer", "Connection closed by peer", "Broken pipe", "NCCL", "gloo/transport")
PATIENCE = 20


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
