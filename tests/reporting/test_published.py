"""Numbers of others: complete, of methods and recipes that exist, beside runs only where both measured the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from mmrobust.config.compose import compose_config, conf_folder
from mmrobust.evaluation.description import describe_encoders
from mmrobust.evaluation.results import write_results
from mmrobust.reporting.published import ALWAYS, STATUS, TRUST, beside, published, recipe_status
from mmrobust.reporting.runs import Run, read_run
from mmrobust.tasks.metric import METRICS
from tests.results import result

EXPERIMENTS = {path.stem for path in (conf_folder() / "experiment").glob("*.yaml")}


def ours(**changes: Any) -> Run:
    """A run of DMRNet on CREMA-D as published."""
    content = result(
        method=changes.get("method", "dmrnet"),
        n=changes.get("n", 744),
        selection=changes.get("selection", "paper"),
        data_split=changes.get("data_split", "ogm"),
        classes=changes.get("classes", 6),
    )
    content["identity"] |= {
        "data": changes.get("data", "cremad"),
        "encoders": changes.get("encoder", "resnet34"),
    }
    content["cost"]["epochs"] = changes.get("epochs", 100)
    with TemporaryDirectory() as folder:
        return read_run(write_results(Path(folder), content), changes.get("metric"))


def test_every_number_says_where_it_is_from() -> None:
    methods = {path.stem for path in (conf_folder() / "method").glob("*.yaml")}
    data = {path.stem for path in (conf_folder() / "data").glob("*.yaml")}
    for row in published():
        assert row.method in methods
        assert row.data in data
        assert row.metric in METRICS
        assert row.trust in TRUST
        assert row.source
        assert row.values
        assert all(0 <= value <= 100 for value in row.values.values())


def test_no_number_stands_there_twice() -> None:
    rows = [(row.method, row.data, row.trust, tuple(sorted(row.values.items()))) for row in published()]
    assert len(rows) == len({*rows})


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_encoder_and_epochs_are_those_of_the_recipe(name: str) -> None:
    config = compose_config([f"experiment={name}"])
    for row in published():
        if f"{row.method}_{row.data}" == name and "encoder" in row.setting:
            assert row.setting["encoder"] == describe_encoders(config.encoder)
            assert row.setting["epochs"] == config.trainer.max_epochs


def test_every_recipe_has_a_status() -> None:
    recipes = {name for name in EXPERIMENTS if not name.startswith("ablation_")}
    assert recipes == set(recipe_status())
    for status in recipe_status().values():
        assert status["status"] in STATUS
        assert status["why"]


def test_beside_a_run_that_measured_the_same() -> None:
    rows, notes = beside([ours()])
    assert [row.values["audio+visual"] for row in rows] == [70.10]
    assert len(notes) == 3  # of others with another weight of the hard term
    assert all("method.hard_weight 0" in note for note in notes)
    assert [row.values for row in beside([ours(epochs=20), ours()])[0]] == [row.values for row in rows]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"selection": "mean"}, "selection paper, here mean"),
        ({"data_split": "actor"}, "data_split ogm, here actor"),
        ({"classes": 4}, "classes 6, here 4"),
        ({"n": 100}, "n 744, here 100"),
        ({"epochs": 20}, "epochs 100, here 20"),
        ({"epochs": None}, "epochs 100, here not recorded"),
        ({"encoder": "tiny"}, "encoder resnet34, here tiny"),
    ],
)
def test_not_beside_a_run_that_did_not(change: dict[str, Any], told: str) -> None:
    rows, notes = beside([ours(**change)])
    assert rows == []
    (note,) = [note for note in notes if "audio 58.87" in note]
    assert f"({told}; log: " in note


def test_what_is_not_known_of_a_number_is_a_difference() -> None:
    rows, (note,) = beside([ours(method="dedicated")])
    assert rows == []
    assert "(encoder not known, here resnet34; epochs not known, here 100; log: " in note


def test_other_data_metrics_and_methods_say_nothing() -> None:
    for change in ({"data": "avmnist"}, {"metric": "ece"}, {"method": "late"}):
        assert beside([ours(**change)]) == ([], [])


def test_what_is_not_recorded_is_a_difference() -> None:
    row = replace(published()[0], setting=dict.fromkeys(ALWAYS, 1) | {"resolution": 224})
    assert row.differences(dict.fromkeys(ALWAYS, "1")) == ["resolution 224, here not recorded"]
