"""The tables in the documents are what the report prints of the stores in results/.

A table stands between `<!-- report results/<table>.csv ... -->` and `<!-- end -->`; the first names the report's
arguments. `make tables` (`python -m tests.test_documents`) writes all of them anew.
"""

from __future__ import annotations

import io
import re
import shlex
from contextlib import chdir, redirect_stdout
from pathlib import Path

import pytest

from mmrobust.report import main
from tests.results import put, result

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / ".github" / "results.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLE = re.compile(r"^(<!-- report (.*?) -->\n).*?^(<!-- end -->)$", re.MULTILINE | re.DOTALL)


def filled(text: str, root: Path = ROOT) -> str:
    """A document with its tables as the report prints them now."""

    def table(found: re.Match[str]) -> str:
        printed = io.StringIO()
        with chdir(root), redirect_stdout(printed):
            assert main([*shlex.split(found[2]), "--format", "markdown"]) == 0, found[1]
        return f"{found[1]}\n{printed.getvalue()}{found[3]}"

    return TABLE.sub(table, text)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_tables_are_those_of_the_stores(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert filled(text) == text, "make tables"
    assert text.count("<!-- report ") == text.count("<!-- end -->") == len(TABLE.findall(text))


def test_a_table_is_filled_and_nothing_else(tmp_path: Path) -> None:
    put(tmp_path / "outputs", result(), result(method="late"))
    with chdir(tmp_path):
        assert main(["outputs", "--store", "results/a.csv"]) == 0
    marked = "before\n\n<!-- report results/a.csv --metric accuracy -->\nold\n<!-- end -->\n\nafter\n"
    once = filled(marked, tmp_path)
    start, end = (
        "before\n\n<!-- report results/a.csv --metric accuracy -->\n\n### avmnist",
        "<!-- end -->\n\nafter\n",
    )
    assert once.startswith(start)
    assert once.endswith(end)
    assert "| late | 50.0 |" in once
    assert filled(once, tmp_path) == once


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(filled(document.read_text(encoding="utf-8")), encoding="utf-8")
