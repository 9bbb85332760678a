"""`python -m tests.claims.experiments [V O M U D]`: run the experiments, print what was found; again: go on."""

from __future__ import annotations

import sys

from tests.claims.experiments.experiment import TABLES, read
from tests.claims.experiments.registry import EXPERIMENTS


def main() -> None:
    for letter in sys.argv[1:] or EXPERIMENTS:
        experiment, table = EXPERIMENTS[letter], TABLES / f"{letter}.csv"
        experiment.run(table, "outputs/claims")
        print(experiment.text(read(table)), flush=True)


if __name__ == "__main__":
    main()
