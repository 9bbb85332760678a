"""`python -m mmrobust.evaluate run=<folder>`: a trained run under another missing or noise protocol; or check it.

    run=<folder>          the run (needed)
    split=test            test | val
    checkpoint=best       best | last
    missing=... missing.test.rate=...   another protocol for the test; default: the run's own
    noise/pattern@noise.test=gaussian noise.test.level=10 noise.seed=...   other noise in the test
    data.manifest=other.csv   another labelled table, of a run that was made with data=manifest: all of it is tested, or of
                          a column split the rows of test; data.root=<folder> if its names do not start from its folder
    keep_masks=true       of segmentation: every sample's classes as a PNG, in masks/
    data.root=... data.batch_size=... data.workers=... trainer.accelerator=... trainer.precision=...
    paths.cache=...       where decoded files are kept; default: as MMROBUST_CACHE says
    allow=[my_package]    packages of yours whose classes the run is made of, as it was given to the run
    verify=true           recompute every number from predictions.npz instead, and say whether they agree

The result goes to <folder>/evaluations/<hash>/.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mmrobust.config.confined import confined
from mmrobust.config.identity import load_run_config
from mmrobust.config.keys import ON_EVALUATE
from mmrobust.config.trust import allowed_by, trusting
from mmrobust.errors import UserError, guarded
from mmrobust.evaluation.verify import verify
from mmrobust.training.reevaluate import changed, evaluate
from mmrobust.training.retention import require_checkpoint

OWN = {"run": None, "split": "test", "checkpoint": "best", "verify": "false", "allow": "[]"}


TEST_NOISE = ("noise/pattern@noise.test", "noise.test.*", "noise.seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    with trusting(allowed_by(given)):
        return guarded(lambda: _main(given))


def _main(argv: list[str]) -> int:
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    options, changes = parse(argv)
    folder = Path(options["run"])
    if options["verify"] == "true":
        return verify(folder)
    config = confined(changed(load_run_config(folder), changes), folder, changes, trains=False)
    require_checkpoint(folder, options["checkpoint"])
    evaluate(folder, config, split=options["split"], checkpoint=options["checkpoint"])
    return 0


def parse(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Split the arguments into this command's own options and overrides of the run's configuration.

    Raises:
        UserError: a key or value is unknown, or `run` is not given.
    """
    options, changes, problems = dict(OWN), [], []
    for text in argv:
        key, equals, value = text.partition("=")
        if text in ("-m", "--multirun"):
            problems.append(
                "-m: an evaluation is of one protocol; run the command once for each, or train with "
                "test_rates=[0.1,0.2,...], which evaluates them all"
            )
        elif key == "trainer.devices":
            problems.append(f"{text}: an evaluation uses one device; leave it out")
        elif not equals:
            problems.append(f"{text!r} is not key=value")
        elif key in options:
            options[key] = value
        elif key.split(".")[0].split("/")[0] == "missing" or key in ON_EVALUATE or _is_test_noise(key):
            changes.append(text)
        else:
            problems.append(
                f"{key} cannot be changed for an evaluation; possible are "
                f"{', '.join([*OWN, 'missing', 'missing.*', *TEST_NOISE, *ON_EVALUATE])}"
            )
    if options["run"] is None:
        problems.append("name the run: run=<folder>")
    allowed = {"split": ("test", "val"), "checkpoint": ("best", "last"), "verify": ("true", "false")}
    problems += [
        f"{key}={options[key]} is not known; choose {' or '.join(values)}"
        for key, values in allowed.items()
        if options[key] not in values
    ]
    if problems:
        raise UserError("; ".join(problems))
    return options, changes


def _is_test_noise(key: str) -> bool:
    return any(fnmatch(key, pattern) for pattern in TEST_NOISE)


if __name__ == "__main__":
    sys.exit(main())
