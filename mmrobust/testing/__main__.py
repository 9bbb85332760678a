"""`python -m mmrobust.testing method=my_method --config-dir my_conf 'allow=[my_method]'`: check what is yours.

    method=...    a method: on made-up data of two and three modalities, for each of its tasks
    fusion=...    a fusion: likewise, within the method (none named: dropout)
    encoder=...   an encoder: on each kind of modality; then within the method
    data=...      a dataset: what it declares and gives; what else is named is checked on its modalities

Further keys as for `python -m mmrobust.run`: method.weight=0.5, paths.data=/datasets, noise=...
Objects are built from the configuration, as in a run. Content is random but for the dataset's own.

A line says of each check whether it holds; `refused` is what a constructor declines with a UserError, such as a kind
of modality that an encoder does not read. With data=... that is a failure, too. The exit status is 0 if all hold, 1 if
one does not, 2 if the command line or the configuration is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from mmrobust.config.check import check_command_line
from mmrobust.config.compose import compose_config
from mmrobust.config.overrides import key_of, with_quotes
from mmrobust.config.trust import allowed_by, trusting
from mmrobust.errors import UserError, guarded

PARTS = ("method", "fusion", "encoder", "data")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    with trusting(allowed_by(given)):
        return guarded(lambda: _main(given))


def _main(argv: list[str]) -> int:
    arguments = _parser().parse_intermixed_args(argv)
    if arguments.traceback:
        os.environ["MMROBUST_TRACEBACK"] = "1"
    overrides = with_quotes(arguments.overrides)
    keys = {key_of(text) for text in overrides}
    named = [part for part in PARTS if any(key.partition("@")[0] == part for key in keys)]
    if not named:
        found = f"found {' '.join(overrides)}" if overrides else "found nothing"
        raise UserError(
            f"{found}; expected what is to be checked: method=, fusion=, encoder= or data=, such as method=dropout"
        )
    if not keys & {"method", "experiment"}:
        overrides.append("method=dropout")
    check_command_line(overrides, arguments.config_dir, multirun=False)
    config = compose_config(overrides, arguments.config_dir)
    from mmrobust.testing.named import check_named

    return check_named(config, named)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m mmrobust.testing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for mmrobust.run")
    parser.add_argument("--config-dir", metavar="FOLDER", help="of groups of your own")
    parser.add_argument("--traceback", action="store_true", help="show where a check failed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
