"""The report's formats: one table in all of them, ranked, escaped, read back by who reads such files."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from mmrobust.report import main
from mmrobust.reporting.formats import FORMATS, SUFFIXES, as_latex
from mmrobust.reporting.tables import Cell, Table, rank
from tests.results import EVIL, put, result

HEADING = "avmnist · test · accuracy (%) · selection mean"
PDFLATEX = shutil.which("pdflatex")


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    scores = {"late": (0.6, 0.7, 0.81), "fusion": (0.5, 0.7, 0.9), "dropout": (0.4, 0.6, 0.9)}
    for method, (audio, visual, both) in scores.items():
        for seed in range(2):
            more = 0.02 * seed
            of_seed = {"audio": audio + more, "visual": visual, "audio+visual": both}
            put(folder, result(of_seed, method=method, seed=seed))
    return folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_best_bold_second_underlined_sorted_by_average(outputs, capsys):
    lines = printed(capsys, outputs, "--format", "markdown").splitlines()[4:]
    assert [line for line in lines if line] == [
        "| late | **61.0 ± 1.4** | **70.0 ± 0.0** | <ins>81.0 ± 0.0</ins> | **70.7 ± 0.5** | **61.0 ± 1.4** | 2 | 10.0 |",
        "| fusion | <ins>51.0 ± 1.4</ins> | **70.0 ± 0.0** | **90.0 ± 0.0** | <ins>70.3 ± 0.5</ins> | <ins>51.0 ± 1.4</ins> | 2 | 10.0 |",
        "| dropout | 41.0 ± 1.4 | <ins>60.0 ± 0.0</ins> | **90.0 ± 0.0** | 63.7 ± 0.5 | 41.0 ± 1.4 | 2 | 10.0 |",
    ]
    lower = printed(capsys, outputs, "--format", "markdown", "--metric", "ece").splitlines()[4:]
    assert lower[0].startswith("| late | **39.0 ± 1.4** |")
    assert lower[2].startswith("| dropout | 59.0 ± 1.4 |")


def test_an_average_over_fewer_combinations_is_not_ranked(tmp_path, capsys):
    put(
        tmp_path,
        result({"audio": 0.9, "visual": None, "audio+visual": 0.9}, method="osmd"),
        result(),
        result(method="late"),
    )
    better = result({"audio": 0.5, "visual": 0.8, "audio+visual": 0.7}, method="best")
    put(tmp_path, better)
    lines = printed(capsys, tmp_path, "--format", "markdown").splitlines()
    (line,) = [line for line in lines if "osmd" in line]
    assert line.startswith("| osmd (2 of 3 combinations) | **90.0** | – | **90.0** | 90.0 | 90.0 |")
    assert any(line.startswith("| best ") and "**66.7**" in line for line in lines)


def test_what_is_read_as_equal_is_equally_good() -> None:
    lines = [
        [Cell("a"), Cell("50.0", 50.01)],
        [Cell("b"), Cell("50.0 ± 1.0", 49.99, 1.0)],
        [Cell("c"), Cell("–")],
    ]
    rank(lines, 1, least=False)
    assert [line[1].rank for line in lines] == [0, 0, 0]
    lines.append([Cell("d"), Cell("40.0", 40.0)])
    rank(lines, 1, least=False)
    assert [line[1].rank for line in lines] == [1, 1, 0, 2]


def test_csv_and_json_have_the_numbers_unrounded(outputs, capsys):
    rows = list(csv.DictReader(io.StringIO(printed(capsys, outputs, "--format", "csv"))))
    nested = json.loads(printed(capsys, outputs, "--format", "json"))
    assert {row["table"] for row in rows} == set(nested) == {HEADING}
    (row,) = [row for row in rows if (row["method"], row["column"]) == ("late", "audio")]
    assert float(row["mean"]) == pytest.approx(61)
    assert float(row["std"]) == pytest.approx(2**0.5)
    assert nested[HEADING]["late"]["audio"] == {"mean": float(row["mean"]), "std": float(row["std"])}
    assert nested[HEADING]["late"]["seeds"] == {"mean": 2, "std": None}
    assert len(rows) == 3 * 7


def test_the_suffix_says_the_format_unless_an_option_does(outputs, tmp_path, capsys):
    starts = {
        ".md": "### ",
        ".tex": "% \\usepackage{booktabs}",
        ".csv": "table,",
        ".json": "{",
        ".txt": "avmnist",
    }
    assert set(starts) == set(SUFFIXES)
    for suffix, start in starts.items():
        path = tmp_path / f"table{suffix}"
        assert "┃ method" in printed(capsys, outputs, "--output", path)
        assert path.read_text(encoding="utf-8").startswith(start)
    printed(capsys, outputs, "--output", tmp_path / "t.tex", "--format", "markdown")
    assert (tmp_path / "t.tex").read_text(encoding="utf-8").startswith("### ")
    assert main([str(outputs), "--output", str(tmp_path / "t.doc")]) == 2
    assert ".doc names no format; end it in .txt, .md" in capsys.readouterr().err
    assert not (tmp_path / "t.doc").exists()


def test_latex_is_escaped_and_ranked(tmp_path, capsys):
    put(
        tmp_path,
        result(method="[a]* a_b & 50 % $x^2$ {~} #1 \\end{table}"),
        result({"audio": 0.9, "visual": 0.9, "audio+visual": 0.9}),
    )
    text = printed(capsys, tmp_path, "--format", "latex")
    escaped = r"{[}a]{*} a\_b \& 50 \% \$x\textasciicircum{}2\$ \{\textasciitilde{}\} \#1 \textbackslash{}end\{table\}"
    assert f"{escaped} & \\underline{{50.0}}" in text
    assert r"dropout & \textbf{90.0}" in text
    assert r"\caption{avmnist $\cdot$ test $\cdot$ accuracy (\%) $\cdot$ selection mean}" in text
    assert text.count(r"\end{table}") == text.count(r"\begin{table}") == 1
    assert r"\begin{tabular}{lrrrrrrr}" in text


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_result_says_is_text_in_every_format(name, tmp_path, capsys):
    put(tmp_path, result(method=EVIL))
    text = printed(capsys, tmp_path, "--format", name)
    assert "\x07" not in text
    assert "\x1b" not in text


@pytest.mark.skipif(PDFLATEX is None, reason="pdflatex is not installed")
def test_latex_compiles(outputs, tmp_path, capsys):
    hard = Table(
        "a & b",
        ["method", "x_1"],
        [[Cell('\\ ~ ^ < > | " ± · – × ↑ ↓ é Ω 漢'), Cell("1.0 ± 0.1", 1.0, 0.1, 1)]],
    )
    tables = printed(capsys, outputs, "--format", "latex") + as_latex([hard])
    packages = r"\usepackage{booktabs}"
    document = rf"\documentclass{{article}}{packages}\begin{{document}}{tables}\end{{document}}"
    (tmp_path / "t.tex").write_text(document.replace("% \\usepackage{booktabs}", ""), encoding="utf-8")
    command = [str(PDFLATEX), "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")
