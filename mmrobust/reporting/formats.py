"""Tables for a terminal, a web page, a paper, and programs; nothing that a result says is more than text in them.

Imports no torch.
"""

from __future__ import annotations

import csv
import html
import io
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mmrobust.errors import UserError
from mmrobust.reporting.tables import Cell, Table


def show(tables: Sequence[Table]) -> None:
    """Print to the terminal; in full width to a file or pipe."""
    _print(tables, None if sys.stdout.isatty() else 10_000, sys.stdout)


def as_terminal(tables: Sequence[Table]) -> str:
    """What `show` prints to a pipe."""
    text = io.StringIO()
    _print(tables, 10_000, text)
    return text.getvalue()


def _print(tables: Sequence[Table], width: int | None, file: object) -> None:
    """Turned on its side where that is less wide."""
    from rich import table as rich
    from rich.console import Console
    from rich.text import Text

    console = Console(width=width, file=file)  # type: ignore[arg-type]
    styles = ("", "bold", "underline")
    for table in tables:
        header, body = [Cell(name) for name in table.header], table.body
        widths = [max(len(cell.text) for cell in column) + 3 for column in zip(header, *body, strict=True)]
        if sum(widths) >= console.width and len(body) < len(header):
            header, *body = map(list, zip(header, *body, strict=True))
        console.print(Text(table.heading, "bold"))
        drawn = rich.Table()
        for i, cell in enumerate(header):
            drawn.add_column(Text(cell.text), justify="right" if i else "left", overflow="fold")
        for line in body:  # texts, not markup: a label may hold [audio]
            drawn.add_row(*(Text(cell.text, styles[cell.rank]) for cell in line))
        console.print(drawn)


def as_markdown(tables: Sequence[Table]) -> str:
    """A heading and a table for each; the best bold, the second underlined."""
    marks = ("{}", "**{}**", "<ins>{}</ins>")
    text = ""
    for table in tables:
        rule = ["---", *["---:"] * (len(table.header) - 1)]
        lines = [[marks[cell.rank].format(_of_markdown(cell.text)) for cell in line] for line in table.body]
        text += f"### {_of_markdown(table.heading)}\n\n"
        for line in ([_of_markdown(name) for name in table.header], rule, *lines):
            text += "| " + " | ".join(line) + " |\n"
        text += "\n"
    return text


def _of_markdown(text: str) -> str:
    """No column, tag, link, picture or emphasis of Markdown."""
    text = html.escape(text, quote=False)
    return text.replace("|", r"\|").replace("](", r"]\(")


LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # which behind the end of a line would be an option of it
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "–": "--",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


def as_latex(tables: Sequence[Table]) -> str:
    """A `table` for each, with the rules of the package booktabs; the best bold, the second underlined."""
    marks = ("{}", r"\textbf{{{}}}", r"\underline{{{}}}")
    parts = ["% \\usepackage{booktabs}"]
    for table in tables:
        lines = [[marks[cell.rank].format(_of_latex(cell.text)) for cell in line] for line in table.body]
        parts += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_of_latex(table.heading)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            r"\toprule",
            " & ".join(map(_of_latex, table.header)) + r" \\",
            r"\midrule",
            *(" & ".join(line) + r" \\" for line in lines),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    return "\n".join(parts) + "\n" if tables else ""


def _of_latex(text: str) -> str:
    """Every letter as itself; what LaTeX has no letter for, as its code."""
    return "".join(
        LATEX.get(c, c if c.isascii() or (c.isalpha() and c < "\u0180") else f"U+{ord(c):04X}") for c in text
    )


def as_csv(tables: Sequence[Table]) -> str:
    """A line for every number, so that tables of any columns are one file: mean and std as in the table's unit."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "method", "column", "mean", "std"])
    for heading, label, column, cell in _numbers(tables):
        writer.writerow([heading, label, column, cell.mean, "" if cell.std is None else cell.std])
    return text.getvalue()


def _numbers(tables: Sequence[Table]) -> Iterable[tuple[str, str, str, Cell]]:
    for table in tables:
        for label, *cells in table.body:
            for column, cell in zip(table.header[1:], cells, strict=True):
                if cell.mean is not None:
                    yield table.heading, label.text, column, cell


def as_json(tables: Sequence[Table]) -> str:
    """The same, nested: table -> method -> column -> mean and std."""
    nested: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {}
    for heading, label, column, cell in _numbers(tables):
        numbers = {"mean": cell.mean, "std": cell.std}
        nested.setdefault(heading, {}).setdefault(label, {})[column] = numbers
    return json.dumps(nested, indent=1, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "terminal": as_terminal,
    "markdown": as_markdown,
    "latex": as_latex,
    "csv": as_csv,
    "json": as_json,
}
SUFFIXES = {".txt": "terminal", ".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json"}


def format_of(path: Path) -> str:
    """The format that a file's name asks for.

    Raises:
        UserError: none is known for it.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"--output {path}: {path.suffix or 'no suffix'} names no format; end it in {', '.join(SUFFIXES)}, or add "
            f"--format {'|'.join(FORMATS)}"
        )
    return SUFFIXES[path.suffix.lower()]
