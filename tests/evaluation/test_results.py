"""The result file: atomic, readable or a clear error; predictions; the table and the picture."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrobust.errors import UserError
from mmrobust.evaluation.description import _version
from mmrobust.evaluation.results import (
    is_complete,
    read_predictions,
    read_results,
    write_predictions,
    write_results,
)


def test_round_trip(tmp_path: Path, results: dict[str, Any]) -> None:
    path = write_results(tmp_path / "new", results)
    assert read_results(path) == read_results(tmp_path / "new") == results
    assert is_complete(path.parent)
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_a_result_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, results: dict[str, Any]) -> None:
    write_results(tmp_path, results)
    with pytest.raises(ValueError, match="JSON"):  # null, never NaN
        write_results(tmp_path, results | {"cost": float("nan")})
    assert read_results(tmp_path) == results
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "not a result file"),
        (b'{"schema": 1, "stat', "not a result file"),
        (b"\xff\xfe\x00", "not a result file"),
        (b"[1, 2]", "not a result file of schema 1"),
        (b'{"schema": 2}', "not a result file of schema 1"),
        (b"{}", "not a result file of schema 1"),
    ],
    ids=str,
)
def test_what_cannot_be_read(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "results.json").write_bytes(content)
    for path in (tmp_path, tmp_path / "results.json"):
        with pytest.raises(UserError, match=message) as error:
            read_results(path)
        assert "results.json" in str(error.value)
    assert not is_complete(tmp_path)


@pytest.mark.parametrize("content", [{"schema": 1}, {"schema": 1, "status": "running"}], ids=str)
def test_incomplete(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert not is_complete(tmp_path)


# Predictions


def predictions() -> dict[str, np.ndarray]:
    return {
        "logits": np.random.default_rng(0).normal(size=(50, 3, 4)).astype(np.float32),
        "available": np.array([[True, False]] * 50),
        "combinations": np.array(["audio", "audio+visual"]),
    }


def test_predictions_round_trip(tmp_path: Path) -> None:
    path = write_predictions(tmp_path, predictions())
    found = read_predictions(path)
    assert list(found) == list(predictions())
    for name, array in predictions().items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.npz"]


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "predictions.npz", a=np.array([{"an": "object"}], dtype=object))
    with pytest.raises(UserError, match=r"predictions\.npz cannot be read"):
        read_predictions(tmp_path / "predictions.npz")


@pytest.mark.parametrize(
    "damage",
    [
        "missing",
        "empty",
        "text",
        "cut",
        "flipped",
        "npy",
    ],
)
def test_damaged_predictions(tmp_path: Path, damage: str) -> None:
    path = write_predictions(tmp_path, predictions())
    content, npy = path.read_bytes(), io.BytesIO()
    np.save(npy, np.arange(3))
    path.unlink()
    damaged = {
        "empty": b"",
        "text": b"<html>",
        "cut": content[: len(content) // 2],
        "flipped": content[:60] + bytes(x ^ 255 for x in content[60:90]) + content[90:],
        "npy": npy.getvalue(),
    }
    if damage in damaged:
        path.write_bytes(damaged[damage])
    with pytest.raises(UserError, match=r"predictions\.npz"):
        read_predictions(path)


def test_an_older_result_is_as_if_it_had_the_later_keys(tmp_path: Path, results: dict[str, Any]) -> None:
    write_results(
        tmp_path, results | {"identity": {"encoder": "tiny"}, "protocol": {"split": "test", "trials": 3}}
    )
    upgraded = read_results(tmp_path)
    later = {"unverified": "", "study": None, "encoders": "tiny"}
    assert upgraded["identity"] == {"encoder": "tiny"} | later
    assert (upgraded["protocol"]["trials"], upgraded["protocol"]["chosen"]) == (3, [])
    assert upgraded["protocol"]["noise"]["test"]["protocol"] == {"name": "clean"}


def test_a_package_that_is_not_installed() -> None:
    """A checkout has no metadata; its result is written all the same."""
    assert _version("mmrobust-that-nobody-installed") is None
    assert _version("torch") is not None
