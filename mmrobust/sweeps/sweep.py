"""Run a sweep: all runs that one command line lists, on one of Hydra's launchers."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mmrobust.errors import UserError
from mmrobust.sweeps.fair import fair
from mmrobust.sweeps.launchers import Launcher
from mmrobust.sweeps.space import grid, reference
from mmrobust.sweeps.studies import opened

KINDS = ("grid", "optuna", "fair")


def sweep(given: Sequence[str], more: Sequence[str], config_dir: str | None) -> int:
    """Run the jobs of a command line: skip complete runs, resume interrupted ones, start the others.

    Args:
        given: the overrides, including the swept ones that the configuration declares (see `space.with_declared`).
        more: overrides with the entries of modalities that a manifest names (see `check_command_line`).
        config_dir: the user's folder of further configurations.

    Returns:
        The exit status: 1 if a run failed, else 0.

    Raises:
        UserError: `sweep.kind` is unknown, or the sweep of that kind cannot be run.
    """
    config = reference(given, config_dir)
    if config.sweep.kind not in KINDS:
        raise UserError(f"sweep.kind={config.sweep.kind} is not known; choose {', '.join(KINDS)}")
    if config.plan:
        from mmrobust.sweeps.plan import plan_sweep

        return 1 if plan_sweep(given, config_dir, config) else 0
    launch = Launcher(given, more, config_dir).launch
    if config.sweep.kind == "grid":
        outcomes = launch(grid(given))
    elif config.sweep.kind == "optuna":
        with opened(given, config) as search:
            outcomes = search.advance(launch)
            search.report(config_dir)
    else:
        outcomes = fair(given, config_dir, config, launch)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        lines = (f"  {' '.join(outcome.overrides)}: {outcome.message}" for outcome in failed)
        print(f"{len(failed)} runs failed:\n" + "\n".join(lines), file=sys.stderr)
    return 1 if failed else 0
