"""`python -m mmrobust.run`: train a method, evaluate every combination of modalities."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mmrobust.config.check import check_command_line
from mmrobust.config.compose import compose_config, conf_folder
from mmrobust.config.overrides import with_quotes
from mmrobust.config.trust import allowed_by, trusting
from mmrobust.errors import UserError, guarded
from mmrobust.loggers.wandb_run import one_attempt
from mmrobust.training.devices import place
from mmrobust.training.lifecycle import execute, resume
from mmrobust.training.processes import led


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    with trusting(allowed_by(given)):
        return guarded(lambda: led(lambda: _main(given)) or 0)


def _main(argv: list[str]) -> int:
    from hydra._internal.utils import get_args_parser

    if "--traceback" in argv:
        argv.remove("--traceback")
        os.environ["MMROBUST_TRACEBACK"] = "1"
    arguments = get_args_parser().parse_args(argv)
    resumed = any(text.startswith("resume=") for text in arguments.overrides)
    if not resumed:
        argv = with_quotes(argv, arguments.multirun)
        arguments.overrides = with_quotes(arguments.overrides, arguments.multirun)
    more: list[str] = []
    if arguments.multirun:
        from mmrobust.sweeps.space import with_declared

        arguments.overrides = with_declared(arguments.overrides, arguments.config_dir)
    if not (arguments.help or arguments.hydra_help or arguments.info or resumed):
        more = check_command_line(arguments.overrides, arguments.config_dir, arguments.multirun)
    if (
        arguments.help
        or arguments.hydra_help
        or arguments.info
        or arguments.cfg
        or arguments.shell_completion
    ):
        if arguments.config_dir:
            with suppress(HydraException, OmegaConfBaseException):  # which Hydra itself tells
                compose_config(
                    [*arguments.overrides, *more], arguments.config_dir
                )  # looks at what would be built
        with suppress(SystemExit):  # Hydra's way to end --help
            _hydra([*argv, *more], lambda config: None)
        return 0
    with one_attempt():
        if resumed:
            return resume(arguments.overrides)
        if arguments.multirun:
            if (here := place()).world > 1:
                raise UserError(
                    f"{here.launcher} started {here.world} processes for a sweep (-m), whose runs start their own; run it "
                    "in one process, or start one run at a time"
                )
            from mmrobust.sweeps.sweep import sweep

            return sweep(arguments.overrides, more, arguments.config_dir)
        config = compose_config(arguments.overrides, arguments.config_dir)
        if config.plan:
            from mmrobust.sweeps.plan import plan_run

            plan_run(config, arguments.config_dir)
            return 0
        execute(config, arguments.overrides, config_dir=arguments.config_dir)
    return 0


def _hydra(argv: list[str], task: Callable[[DictConfig], object]) -> int:
    """Hand the command line to Hydra's own main."""
    import hydra

    main = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
    with _argv(argv):
        main(task)()
    return 0


@contextmanager
def _argv(argv: Sequence[str]) -> Iterator[None]:
    from hydra.core.global_hydra import GlobalHydra

    before, sys.argv = sys.argv, ["mmrobust.run", *argv]
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()


if __name__ == "__main__":
    sys.exit(main())
