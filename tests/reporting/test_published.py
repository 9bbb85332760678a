"""Numbers of others: complete, of methods and recipes that exist, beside runs only where both measured the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmrobust.config.compose import conf_folder
from mmrobust.reporting.published import STATUS, TRUST, beside, published, recipe_status

EXPERIMENTS = {path.stem for path in (conf_folder() / "experiment").glob("*.yaml")}


def shared(**changes: str) -> dict[str, str]:
    """What a run of DMRNet on CREMA-D as published has."""
    return {
        "data": "cremad",
        "metric": "accuracy",
        "data_split": "ogm",
        "selection": "paper",
        "classes": "6",
        "noise": "clean",
    } | changes


def test_every_number_says_where_it_is_from() -> None:
    methods = {path.stem for path in (conf_folder() / "method").glob("*.yaml")}
    for row in published():
        assert row.method in methods
        assert row.trust in TRUST
        assert row.source
        assert row.values
        assert all(0 <= value <= 100 for value in row.values.values())


def test_every_recipe_has_a_status() -> None:
    recipes = {name for name in EXPERIMENTS if not name.startswith("ablation_")}
    assert recipes == set(recipe_status())
    for status in recipe_status().values():
        assert status["status"] in STATUS
        assert status["why"]


def test_beside_a_run_that_measured_the_same() -> None:
    rows, notes = beside(shared(), ["dmrnet"])
    assert [row.values["audio+visual"] for row in rows] == [70.10]
    assert notes == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"selection": "mean"}, "selection paper, here mean"),
        ({"data_split": "actor"}, "data_split ogm, here actor"),
        ({"classes": "4"}, "classes 6, here 4"),
    ],
)
def test_not_beside_a_run_that_did_not(change: dict[str, str], told: str) -> None:
    rows, (note,) = beside(shared(**change), ["dmrnet"])
    assert rows == []
    assert told in note
    assert "70.1" in note


def test_other_data_metrics_and_methods_say_nothing() -> None:
    for change in ({"data": "avmnist"}, {"metric": "macro_f1"}):
        assert beside(shared(**change), ["dmrnet"]) == ([], [])
    assert beside(shared(), ["late"]) == ([], [])


def test_what_is_not_recorded_is_a_difference() -> None:
    row = replace(published()[0], setting={"resolution": 224})
    assert row.differences(shared()) == ["resolution 224, here not recorded"]
