"""`python -m mmrobust.training <folder>`: train the run whose configuration lies in a folder."""

import sys
from pathlib import Path

from mmrobust.errors import guarded
from mmrobust.training.train import train


def main() -> int:
    train(Path(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
