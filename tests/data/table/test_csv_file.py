from pathlib import Path

import pytest

from mmrobust.data.table.csv_file import content_hash, modality_columns, read_table
from mmrobust.errors import UserError


def refused(path: Path, read=read_table) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_separators_marks_and_line_ends(tmp_path, separator, mark, ending):
    rows = [["id", "label", "rgb"], ["a", '"x, y; z"', " a.png "], [""], ["ü", "", "b.png"]]
    path = tmp_path / "my.csv"
    path.write_bytes(mark + ending.join(separator.join(row) for row in rows).encode())
    table = read_table(path)
    assert table.header == ("id", "label", "rgb")
    assert [row.line for row in table.rows] == [2, 4]
    assert table.rows[0].cells == {"id": "a", "label": "x, y; z", "rgb": "a.png"}
    assert table.rows[1].cells["id"] == "ü"


@pytest.mark.parametrize("separator", [";", ",", "\t"])
def test_the_line_that_excel_writes_first(tmp_path, separator):
    path = tmp_path / "my.csv"
    lines = [
        f"sep={separator}",
        *(separator.join(row) for row in (["id", "label", "rgb"], ["a", "x", "a.png"])),
    ]
    path.write_text("\r\n".join(lines), newline="")
    table = read_table(path)
    assert table.header == ("id", "label", "rgb")
    assert [(row.line, row.cells["rgb"]) for row in table.rows] == [(3, "a.png")]


def test_lines_count_quoted_line_ends(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text('id,label,rgb\na,"two\nlines",a.png\nb,y,b.png\n')
    assert [row.line for row in read_table(path).rows] == [2, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 and so on", "is an Excel file; save it as CSV"),
        ("id,label,rgb\n".encode("utf-16"), "is UTF-16 or no text"),
        (b"id,label,rgb\na,caf\xe9,a.png\n", "line 2 is not UTF-8"),
        (b"", "is empty; its first line names the columns: id, split, label, mask, value or labels"),
        (b"id,label,rgb\n\n", "has no rows below its header"),
        (b"id,label,label\n", "line 1 names label more than once"),
        (b"id,,label\n", "line 1 names (no name)"),
        (b",id,label\n0,a,x\n", "the first column has no name, like the index that pandas writes; save it with index=False"),
        (b"id,label,rgb\na,x\nb,x,b.png\nc,x,c,d\n", "2 rows have another number of cells than the 3 columns (line 2: 2, line 4: 4)"),
        (b'id,label,rgb\na,x,"a.png\n', "line 2 cannot be read as CSV"),
    ],
)  # fmt: skip
def test_what_is_no_table(tmp_path, content, message):
    path = tmp_path / "my.csv"
    path.write_bytes(content)
    assert message in refused(path)


def test_a_table_that_is_not_there(tmp_path):
    assert "does not exist; name your CSV: data.manifest=my.csv" in refused(tmp_path / "no.csv")
    assert "cannot be read (Is a directory)" in refused(tmp_path)


def test_columns_of_modalities(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("id,rgb,split,label,audio\n")
    assert modality_columns(path) == ["rgb", "audio"]
    assert modality_columns(path, ["audio"]) == ["audio"]


@pytest.mark.parametrize(
    ("header", "chosen", "message"),
    [
        ("id,rgb", None, "no column 'label', 'mask', 'value' or 'labels'; it has the columns id, rgb"),
        ("id,Label,rgb", None, "no column 'label', 'mask', 'value' or 'labels'; rename 'Label' to 'label'"),
        ("id,label", None, "no column of file names"),
        (
            "id,label,rgb",
            ["rbg"],
            "data.columns names 'rbg', which is no modality's column; did you mean rgb?",
        ),
        ("id,label,rgb", ["label"], "data.columns names 'label', which is no modality's column"),
        ("id,label,rgb", ["rgb", "rgb"], "data.columns names 'rgb' twice"),
        ("id,label,my image", None, "column 'my image' cannot be a modality's name"),
        ("id,label,width", None, "column 'width' cannot be a modality's name"),
        (
            "one column",
            None,
            "it has the columns one column; expected are id, split, label, mask, value or labels",
        ),
        ("id,label,average", None, "column 'average' cannot be a modality's name"),
        ("id,label,full", None, "column 'full' cannot be a modality's name"),
    ],
)
def test_columns_that_cannot_be(tmp_path, header, chosen, message):
    path = tmp_path / "my.csv"
    path.write_text(header + "\n")
    assert message in refused(path, lambda p: modality_columns(p, chosen))


def test_the_hash_is_of_the_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text("id,label,rgb\n")
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b")
    (tmp_path / "b").write_text("id,label,rgb\nc,d,e\n")
    assert content_hash(tmp_path / "a") != content_hash(tmp_path / "b")
