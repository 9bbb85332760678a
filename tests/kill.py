"""SIGKILL runs at random moments, resume them, compare with undisturbed ones: `python -m tests.kill --seed 0`.

Exit status 0 if every resumed run equals the undisturbed one bit for bit: weights, optimizer, metrics, logits.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from mmrobust.evaluation.results import is_complete
from mmrobust.run import main as run
from tests.runs import differences, in_a_process, outcome, tiny

METHODS = ("fusion", "dropout", "dmrnet")
SMALL = tiny(
    "data.num_train=192",
    "data.num_val=64",
    "data.num_test=64",
    "data.batch_size=32",
    "data.num_modalities=3",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=2",
    "missing=mcar",
    "keep=all",
)


def kill_after(argv: list[str], seconds: float) -> bool:
    """Start a run, kill it after a while; whether it was still alive."""

    def child() -> None:
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (the process ends with it)
        torch.set_num_threads(1)
        sys.exit(run(argv))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(seconds)
    alive = process.exitcode is None
    if alive and process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return alive


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    rng = random.Random(options.seed)
    torch.set_num_threads(1)
    equal = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        undisturbed, length = {}, {}
        for method in METHODS:
            started = time.perf_counter()
            assert (
                in_a_process([*SMALL, f"method={method}", f"paths.run={folder}/{method}"], folder / "out")
                == 0
            )
            length[method] = time.perf_counter() - started
            undisturbed[method] = outcome(folder / method)
        for i in range(options.kills):
            method, workers = METHODS[i % len(METHODS)], rng.choice((0, 0, 2))
            path = folder / f"kill-{i}"
            argv = [*SMALL, f"method={method}", f"data.workers={workers}", f"paths.run={path}"]
            moments = []
            while not is_complete(path):
                moment = rng.uniform(0, (1.1 + 2 * bool(workers)) * length[method])
                if (path / "config.yaml").exists():
                    argv = [f"resume={path}", "allow=[tests]"]
                if kill_after(argv, moment if len(moments) < 2 else 300):
                    moments.append(f"{moment:.2f}")
            wrong = differences(undisturbed[method], outcome(path))
            equal += not wrong
            words = f"differs in {', '.join(wrong)}" if wrong else "equal"
            print(
                f"{method}, {workers} workers, killed after {' and '.join(moments) or '-'} s: {words}",
                flush=True,
            )
    print(f"{equal} of {options.kills} equal the undisturbed run bit for bit")
    return 0 if equal == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
