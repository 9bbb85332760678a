"""`python -m mmrobust.report outputs`: methods × modality combinations, mean ± std over seeds. No torch.

It reads folders of runs, and stores of results (CSV files that --store wrote, or a folder of them) alike.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmrobust.errors import UserError, guarded, printable
from mmrobust.files import write_text
from mmrobust.reporting.curves import curve_tables, plot_curves, read_curves
from mmrobust.reporting.formats import FORMATS, format_of, show
from mmrobust.reporting.runs import Run, find_results, read_run
from mmrobust.reporting.store import add_to_store, of_metric, read_store
from mmrobust.reporting.tables import Table, make_tables, without_trials


def read_all(places: Sequence[Path], metric: str | None, notes: list[str]) -> Iterator[Run]:
    """Yield the runs of folders and stores, each file once; append the reasons for skipped ones to `notes`."""
    seen: set[Path] = set()
    for place in places:
        stores = [place] if place.is_file() else sorted(place.glob("*.csv"))
        for path in stores if place.is_file() else [*stores, *find_results(place)]:
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            try:
                if path in stores:
                    stored = read_store(path)
                    notes += [f"skipped: {problem}" for problem in stored.problems]
                    yield from of_metric(stored.runs, metric)
                else:
                    yield read_run(path, metric)
            except (UserError, OSError) as error:
                notes.append(f"skipped: {error}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m mmrobust.report", description=about, epilog=more)
    add = parser.add_argument
    add(
        "places",
        nargs="*",
        type=Path,
        default=[Path("outputs")],
        metavar="folder or store",
        help="where runs lie (default: outputs)",
    )
    add("--metric", help="another metric than the task's primary one")
    add("--rows", choices=("method", "run"), default="method", help="a row for every method, or every run")
    add("--trials", action="store_true", help="the trials of studies, too, a table for each study")
    add("--curves", type=Path, metavar="PNG", help="draw the curves over missing rates (sweep=curves, test_rates)")  # fmt: skip
    add(
        "--format",
        choices=tuple(FORMATS),
        help="of what is printed, or of --output, whose suffix says it else",
    )
    add("--output", type=Path, metavar="FILE", help="also write the tables to this file")
    add("--store", type=Path, metavar="CSV", help="also add the runs to this store, results/<table>.csv")
    arguments = parser.parse_args(argv)
    return guarded(lambda: _report(arguments))


def _report(arguments: argparse.Namespace) -> int:
    notes: list[str] = []
    style = arguments.format
    if arguments.output:
        style = style or format_of(arguments.output)
    runs = list(read_all(arguments.places, arguments.metric, notes))
    if arguments.store:
        notes += add_to_store(arguments.store, [run for run in runs if run.study is None])
    if arguments.rows == "run":
        for run in runs:
            run.row["seed"] = str(run.seed)
    if not arguments.trials:
        runs = without_trials(runs, notes)
    tables = make_tables(runs, notes)
    curves = read_curves([run for run in runs if run.study is None], arguments.metric)
    tables += curve_tables(curves)
    for note in notes:
        print(printable(note), file=sys.stderr)
    if not runs:
        places = ", ".join(map(str, arguments.places))
        raise UserError(
            f"no result to report in {places}; train first (python -m mmrobust.run), or give the folder"
        )
    if arguments.curves:
        plot_curves(curves, arguments.curves)
        print(f"curves: {arguments.curves}", file=sys.stderr)
    if arguments.output:
        write(tables, style, arguments.output)
    if arguments.output or style in (None, "terminal"):
        show(tables)
    else:
        print(FORMATS[style](tables), end="")
    return 0


def write(tables: Sequence[Table], style: str, path: Path) -> None:
    """Write the tables to a file.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, FORMATS[style](tables))
    except OSError as error:
        raise UserError(f"--output {path} cannot be written: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
