"""`python -m mmrobust.training.launch <count> <folder>`: a process for each device of this machine, by torchrun, which is
not heard: what a rank has to say, it has said, or left for `processes` to say."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

from mmrobust.training.children import ALONE, leave_mistake

SIGNALS = (129, 130, 143)  # a rank's status when a signal ended it after its state was saved


def main() -> int:
    logging.disable(logging.CRITICAL)  # of the ranks that were stopped because another failed
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
