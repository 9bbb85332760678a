"""`python -m mmrobust.run`: train a method, evaluate every combination of modalities."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from mmrobust.config.answers import answer, asks, read_arguments
from mmrobust.config.check import check_command_line
from mmrobust.config.compose import compose_config
from mmrobust.config.overrides import refuse_without_effect, with_pluses, with_quotes
from mmrobust.config.trust import allowed_by, trusting
from mmrobust.errors import UserError, guarded
from mmrobust.loggers.wandb_run import one_attempt
from mmrobust.training.devices import place
from mmrobust.training.lifecycle import execute, resume
from mmrobust.training.processes import on_leader


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    with trusting(allowed_by(given)):
        return guarded(lambda: on_leader(lambda: _main(given)) or 0)


def _main(argv: list[str]) -> int:
    if "--traceback" in argv:
        argv.remove("--traceback")
        os.environ["MMROBUST_TRACEBACK"] = "1"
    arguments = read_arguments(argv)
    overrides: list[str] = arguments.overrides
    resumed = any(text.startswith("resume=") for text in overrides)
    if not resumed:
        overrides = with_pluses(with_quotes(overrides, arguments.multirun))
        refuse_without_effect(overrides)
    more: list[str] = []
    if arguments.multirun:
        from mmrobust.sweeps.space import first_job, with_declared

        overrides = with_declared(overrides, arguments.config_dir)
    if not (arguments.help or arguments.hydra_help or arguments.info or resumed):
        more = check_command_line(overrides, arguments.config_dir, arguments.multirun)
    if asks(arguments):
        answer(arguments, first_job(overrides) if arguments.multirun else overrides, more)
        return 0
    with one_attempt():
        if resumed:
            return resume(overrides)
        if arguments.multirun:
            if (here := place()).world > 1:
                raise UserError(
                    f"{here.launcher} started {here.world} processes for a sweep (-m), whose runs start their own; run it "
                    "in one process, or start one run at a time"
                )
            from mmrobust.sweeps.sweep import sweep

            return sweep(overrides, more, arguments.config_dir)
        config = compose_config(overrides, arguments.config_dir)
        if config.plan:
            from mmrobust.sweeps.plan import plan_run

            plan_run(config, arguments.config_dir)
            return 0
        execute(config, overrides, config_dir=arguments.config_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
