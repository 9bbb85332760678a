"""A sweep: the runs that one command line names, on one of Hydra's launchers."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from mmrobust import config as configuration
from mmrobust.launchers import Launcher


def sweep(given: Sequence[str], more: Sequence[str], config_dir: str | None) -> int:
    """Run what a command line names; complete runs are skipped, interrupted ones go on.

    Returns:
        The exit status: 1 if a run failed.
    """
    launcher = Launcher(given, more, config_dir)
    outcomes = launcher.launch(grid(given))
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        lines = (f"  {' '.join(outcome.overrides)}: {outcome.message}" for outcome in failed)
        print(f"{len(failed)} runs failed:\n" + "\n".join(lines), file=sys.stderr)
    return 1 if failed else 0


def grid(given: Sequence[str]) -> list[list[str]]:
    """The overrides of every job: the product of what the overrides list. Those of `hydra.` are not a job's."""
    with configuration.our_hydra():
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        parsed = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(list(given))
        parsed = [o for o in parsed if not o.key_or_group.startswith("hydra")]
        (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(job) for job in jobs]
