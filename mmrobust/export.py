"""`python -m mmrobust.export run=<folder> output=x.mmrobust`: a trained run as one file, for `mmrobust.load` and `predict`.

run=<folder>          a complete run (needed)
output=x.mmrobust     the file (needed)
format=run            weights and configuration; nothing in it can run code
checkpoint=best       best | last
allow=[my_package]    packages of yours whose classes the run is made of
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mmrobust.config.trust import allowed_by, trusting
from mmrobust.errors import UserError, guarded
from mmrobust.files import expanded
from mmrobust.predict.request import describe_run
from mmrobust.training.run_file import ENDING, write_run_file

KEYS = {"run": None, "output": None, "format": "run", "checkpoint": "best", "allow": "[]"}
CHOICES = {"format": ("run",), "checkpoint": ("best", "last")}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    with trusting(allowed_by([text for text in given if text.startswith("allow=")])):
        return guarded(lambda: _main(given))


def _main(argv: list[str]) -> int:
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    run, output, checkpoint = parse(argv)
    describe_run(run, checkpoint)
    size = write_run_file(run, checkpoint, output)
    print(
        f"{output}: {size / 2**20:.1f} MiB; python -m mmrobust.predict run={output} --help says how to use it"
    )
    return 0


def parse(argv: Sequence[str]) -> tuple[Path, Path, str]:
    """Run, output and checkpoint. Raises: UserError: all that is wrong with a command line."""
    options, problems = dict(KEYS), []
    for text in argv:
        key, equals, value = text.partition("=")
        if not equals or key not in KEYS:
            problems.append(f"{text!r} is not known; possible are {', '.join(f'{k}=' for k in KEYS)}")
        else:
            options[key] = value
    problems += [f"{key}= is needed" for key in ("run", "output") if not options[key]]
    problems += [
        f"{key}={options[key]} is not known; choose {' or '.join(known)}"
        for key, known in CHOICES.items()
        if options[key] not in known
    ]
    if options["output"] and not options["output"].endswith(ENDING):
        problems.append(f"output={options['output']} must end in {ENDING}")
    if problems:
        raise UserError("; ".join(problems))
    run, output = expanded(str(options["run"])), expanded(str(options["output"]))
    if not output.parent.is_dir():
        raise UserError(f"output={output}: there is no folder {output.parent}")
    if run.is_file():
        raise UserError(f"run={run} is a file; name the run's folder")
    return run, output, str(options["checkpoint"])


if __name__ == "__main__":
    sys.exit(main())
