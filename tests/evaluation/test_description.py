"""What a result says of its run."""

from pathlib import Path

import pytest

from mmrobust.evaluation.results import read_results
from mmrobust.run import main
from tests.runs import finished, tiny


@pytest.mark.parametrize(("method", "fusion"), [("late", None), ("fusion", "concat")])
def test_a_fusion_is_named_where_there_is_one(method: str, fusion: str | None, tmp_path: Path) -> None:
    assert main([*tiny(f"method={method}"), f"paths.outputs={tmp_path}"]) == 0
    (folder,) = finished(tmp_path)
    assert read_results(folder)["identity"]["fusion"] == fusion
