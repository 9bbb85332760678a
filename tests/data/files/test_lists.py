"""Lists of samples: every row that cannot be understood is named by its line."""

from pathlib import Path

from mmrobust.data.files.lists import read_list
from mmrobust.errors import Problems


def parse(line: str) -> tuple[str, int] | None:
    name, number = line.split(",")
    return None if name == "name" else (name, int(number))


def read(path: Path) -> tuple[dict[str, int], Problems]:
    problems = Problems()
    keys = {"lacking": "put it there", "expected": "`name,number`", "mend": "mend them", "samples": "samples"}
    return read_list(path, parse, problems, **keys), problems


def test_rows_by_name(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfname,number\r\na,1\r\n\r\nb,2\r\n")
    assert read(path) == ({"a": 1, "b": 2}, [])


def test_what_is_wrong_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a,1\nb\n\na,3\nc,x\n")
    found, problems = read(path)
    assert found == {"a": 1}
    assert problems == [
        f"{path}: not `name,number`: 2 (line 2: b, line 5: c,x); mend them",
        f"{path}: listed before: 1 (line 4: a); keep one row of each",
    ]


def test_no_list_and_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    assert read(path) == ({}, [f"no {path}; put it there"])
    path.write_text("name,number\n")
    assert read(path) == ({}, [f"{path} names no samples; expected rows `name,number`"])
