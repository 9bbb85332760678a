"""Tables as Markdown, in which nothing that a result says is more than text. Imports no torch."""

from __future__ import annotations

import html

from mmrobust.reporting.tables import Tables


def as_markdown(tables: Tables) -> str:
    """A heading and a table for each."""
    text = ""
    for heading, (header, *body) in tables:
        text += f"### {_escaped(heading)}\n\n"
        for line in (header, ["---", *["---:"] * (len(header) - 1)], *body):
            text += "| " + " | ".join(map(_escaped, line)) + " |\n"
        text += "\n"
    return text


def _escaped(text: str) -> str:
    """No column, tag, link or picture of Markdown."""
    text = html.escape(text, quote=False)
    return text.replace("|", r"\|").replace("](", r"]\(")
