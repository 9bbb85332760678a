"""`python -m mmrobust.dashboard <entity>/<project>`: workspace and report of a project on Weights & Biases.

Methods compared, every combination of modalities, curves over the missing rate, and parallel coordinates for sweeps.
Their specification is built and checked without a server and written to a file; with an API key it is sent as well.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmrobust.config.build import construct
from mmrobust.config.check import check_command_line
from mmrobust.config.compose import compose_config
from mmrobust.config.overrides import with_quotes
from mmrobust.config.rules import modality_names
from mmrobust.config.trust import allowed_by, trusting
from mmrobust.errors import UserError, guarded
from mmrobust.evaluation.results import is_complete, read_results
from mmrobust.loggers.wandb_run import as_our_error, signed_in
from mmrobust.reporting.runs import find_results
from mmrobust.tasks.metric import primary_metric

if TYPE_CHECKING:
    from mmrobust.loggers.wandb_panels import Shown


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mmrobust.dashboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("project", metavar="entity/project", help="of W&B: what logger.wandb.entity and .project say")
    add("data", nargs="*", metavar="data=...", help="take the modalities from a choice of data and its keys")
    add("--outputs", type=Path, help="take combinations and metric from the runs in this folder")
    add("--metric", help="another metric than the primary one of the runs or the data")
    add("--output", type=Path, default=Path("dashboard.json"), help="the file (default: dashboard.json)")
    arguments = parser.parse_args(argv)
    with trusting(allowed_by(arguments.data)):
        return guarded(lambda: _dashboard(arguments))


def _dashboard(arguments: argparse.Namespace) -> int:
    entity, slash, project = arguments.project.partition("/")
    if not (entity and slash and project) or "/" in project:
        raise UserError(f"{arguments.project!r} does not say where: give <entity>/<project>, both as in W&B")
    from mmrobust.loggers import wandb_panels

    shown = what_is_shown(arguments.outputs, arguments.data, arguments.metric)
    view = wandb_panels.workspace(entity, project, shown)
    draft = wandb_panels.report(entity, project, shown, known=False)
    text = json.dumps(wandb_panels.specification(view, draft), indent=1)
    try:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {arguments.output} cannot be written: {error}") from error
    print(f"{len(shown.combinations)} combinations, {shown.metric}: {arguments.output}")
    with as_our_error(f"The specification is in {arguments.output}; to send it, run this command again"):
        if not signed_in():
            print("not sent, since no API key is known; to send it: `wandb login`, then this command again")
            return 0
        wandb_panels.report(entity, project, shown, known=True).save()  # first: it asks for the project
        view.save()
    return 0


def what_is_shown(outputs: Path | None, data: Sequence[str], metric: str | None) -> Shown:
    """Combinations and primary metric of the runs below a folder, or of a choice of data.

    Raises:
        UserError: neither or both are given, there are no runs, or they have no metric in common.
    """
    from mmrobust.combinations import all_combinations, combination_name
    from mmrobust.loggers.wandb_panels import Shown

    if (outputs is None) == (not data):
        raise UserError(
            "say which combinations there are: --outputs <folder of runs>, or data=<choice>, not both"
        )
    if outputs is None:
        check_command_line(with_quotes(data), None, multirun=False)
        config = compose_config(with_quotes(data))
        names = [combination_name(c) for c in all_combinations(modality_names(config))]
        # Some datasets know their task by themselves; nothing of them is read.
        return Shown(names, metric or primary_metric(vars(construct(config.data))))
    runs = [read_results(path) for path in find_results(outputs) if is_complete(path.parent)]
    if not runs:
        raise UserError(f"{outputs} has no finished run; train first, or give data=<choice>")
    primary = {run["primary"]["metric"] for run in runs}
    if metric is None and len(primary) > 1:
        raise UserError(
            f"the runs in {outputs} have several primary metrics; choose --metric {' or '.join(sorted(primary))}"
        )
    found = dict.fromkeys(name for run in runs for name in run["combinations"])
    return Shown(list(found), metric or primary.pop())


if __name__ == "__main__":
    sys.exit(main())
