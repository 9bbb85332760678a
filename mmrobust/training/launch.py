"""`python -m mmrobust.training.launch <count> <folder>`: start one rank per device of this machine by torchrun.

torchrun's own log is silenced: a rank prints its errors itself, or leaves them for the parent (see `children`).
"""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

from mmrobust.training.children import ALONE, leave_mistake

# Exit status of a rank that saved its state after a signal.
SIGNALS = (129, 130, 143)


def main() -> int:
    # torchrun would log an error for each rank that it stops because another one failed.
    logging.disable(logging.CRITICAL)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    count, folder = sys.argv[1:]
    try:
        torchrun(["--standalone", f"--nproc-per-node={count}", "-m", "mmrobust.training", folder])
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        if first.exitcode < 0:
            name = signal.Signals(-first.exitcode).name
            why = " (by the system, if memory ran out)" if name == "SIGKILL" else ""
            leave_mistake(
                Path(folder),
                f"process {rank} of the training in {folder} was ended by {name}{why}; go on with: python -m mmrobust.run "
                f"resume={folder}",
            )
            return 2
        if first.exitcode == ALONE:
            leave_mistake(
                Path(folder),
                f"process {rank} of the training in {folder} has lost the others (log.txt says more); go on with: "
                f"python -m mmrobust.run resume={folder}",
            )
            return 2
        return first.exitcode if first.exitcode in (2, *SIGNALS) else 1
    except SignalException as stop:
        return 128 + int(stop.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main())
