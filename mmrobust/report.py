"""`python -m mmrobust.report outputs`: methods × modality combinations, mean ± std over seeds. No torch."""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmrobust.errors import UserError, guarded, printable
from mmrobust.reporting.curves import curve_tables, plot_curves, read_curves
from mmrobust.reporting.markdown import as_markdown
from mmrobust.reporting.tables import Tables, make_tables, read_run, without_trials


def find_results(folders: Iterable[Path]) -> list[Path]:
    """All result files below the folders, and those that unfinished runs still owe."""
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give the one that holds your runs (paths.outputs)")
        for parent, below, files in os.walk(folder):
            below[:] = sorted(name for name in below if name not in ("teachers", "evaluations", "debug"))
            if "results.json" in files or "overrides.txt" in files:
                found.setdefault(Path(parent).resolve() / "results.json", Path(parent, "results.json"))
    return list(found.values())


def show(tables: Tables) -> None:
    """Print to the terminal, turned on its side where that is less wide; in full width to a file or pipe."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 10_000)
    for heading, (header, *body) in tables:
        widths = [max(map(len, column)) + 3 for column in zip(header, *body, strict=True)]
        if sum(widths) >= console.width and len(body) < len(header):
            header, *body = map(list, zip(header, *body, strict=True))
        console.print(Text(heading, "bold"))
        table = Table()
        for i, name in enumerate(header):
            table.add_column(Text(name), justify="right" if i else "left", overflow="fold")
        for line in body:
            table.add_row(*map(Text, line))  # not markup: a label may hold [audio]
        console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mmrobust.report", description=__doc__)
    add = parser.add_argument
    add("folders", nargs="*", type=Path, default=[Path("outputs")], help="where runs lie (default: outputs)")
    add("--metric", help="another metric than the task's primary one")
    add("--rows", choices=("method", "run"), default="method", help="a row for every method, or every run")
    add("--trials", action="store_true", help="the trials of studies, too, a table for each study")
    add(
        "--curves",
        type=Path,
        metavar="PNG",
        help="draw the curves over missing rates (sweep=curves, test_rates)",
    )
    add("--markdown", action="store_true", help="print Markdown instead of the terminal's table")
    add("--output", type=Path, help="also write Markdown to this file")
    arguments = parser.parse_args(argv)
    return guarded(lambda: _report(arguments))


def _report(arguments: argparse.Namespace) -> int:
    runs, notes = [], []
    for path in find_results(arguments.folders):
        try:
            run = read_run(path, arguments.metric)
        except (UserError, OSError) as error:
            notes.append(f"skipped: {error}")
            continue
        if arguments.rows == "run":
            run.row["seed"] = str(run.seed)
        runs.append(run)
    if not arguments.trials:
        runs = without_trials(runs, notes)
    tables = make_tables(runs, notes)
    curves = read_curves([run for run in runs if run.study is None], arguments.metric)
    tables += curve_tables(curves)
    for note in notes:
        print(printable(note), file=sys.stderr)
    if not runs:
        places = ", ".join(map(str, arguments.folders))
        raise UserError(
            f"no result to report in {places}; train first (python -m mmrobust.run), or give the folder"
        )
    if arguments.curves:
        plot_curves(curves, arguments.curves)
        print(f"curves: {arguments.curves}", file=sys.stderr)
    if arguments.output:
        try:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(as_markdown(tables), encoding="utf-8")
        except OSError as error:
            raise UserError(f"--output {arguments.output} cannot be written: {error}") from error
    if arguments.markdown:
        print(as_markdown(tables), end="")
    else:
        show(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
