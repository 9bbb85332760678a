"""Overrides in Hydra's syntax: their keys, what they list, what is written back."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from mmrobust.config.check import check_command_line
from mmrobust.config.compose import compose_config
from mmrobust.config.overrides import (
    as_override,
    first,
    key_of,
    parse,
    refuse_without_effect,
    root,
    texts,
    values,
    with_pluses,
    with_quotes,
    with_values,
)
from mmrobust.errors import UserError


@pytest.mark.parametrize(
    ("text", "key", "beginning"),
    [
        ("seed=1", "seed", "seed"),
        ("+trainer.x=a=b", "trainer.x", "trainer"),
        ("~fusion", "fusion", "fusion"),
        ("sweep/space=dmrnet", "sweep/space", "sweep"),
        ("++sweep.space.x=1", "sweep.space.x", "sweep"),
    ],
)
def test_keys(text: str, key: str, beginning: str) -> None:
    assert (key_of(text), root(text)) == (key, beginning)


@pytest.mark.parametrize(
    ("text", "listed", "read"),
    [
        ("x=3", ["3"], [3]),
        ("x=[1,2]", ["[1,2]"], [[1, 2]]),
        ("x=a,b", ["a", "b"], ["a", "b"]),
        ("+x=true,null,'a b',[1,2]", ["True", "null", "'a b'", "[1,2]"], [True, None, "a b", [1, 2]]),
        ("x=range(1,6,2)", ["1", "3", "5"], [1, 3, 5]),
        ("x=tag(log,interval(1e-3,0.5))", ["0.001", "0.5"], [0.001, 0.5]),
        ("x=shuffle(3,1,2)", ["3", "1", "2"], [3, 1, 2]),  # the same every time
        ("x=range(3,1)", [], []),
        ("x=range(1,3,0)", [], []),
    ],
)
def test_what_an_override_can_become(text: str, listed: list[str], read: list[Any]) -> None:
    assert texts(parse(text)) == listed
    assert values(parse(text)) == read


def test_the_first_value() -> None:
    given = ["+a=1,2", "b@c.b=x,y", "c=[1,2]", "d=range(3,1)"]
    assert [first(parse(text)) for text in given] == ["+a=1", "b@c.b=x", "c=[1,2]", "d=range(3,1)"]


@pytest.mark.parametrize("value", ["Läufe (1)", "a: b", "x=y z", "50%"])
def test_a_value_that_hydra_would_not_read_gets_quotes(value: str) -> None:
    (text,) = with_quotes([f"paths.run={value}"])
    assert parse(text).value() == value


def test_what_hydra_reads_gets_none() -> None:
    given = ["seed=1,2", "x={a: 1}", "paths.run='a (b'", "-m", "seed", "x=interval(0,1)"]
    assert with_quotes(given) == given


def test_plain_values_as_overrides() -> None:
    value = {
        "name": "a b",
        "storage": "/tmp/ä (1)/x.journal",
        "trial": 3,
        "pruner": {"pruner": None, "n": 0.5},
    }
    assert parse(f"study={as_override(value)}").value() == value


def test_mappings_that_are_open_need_no_plus() -> None:
    mine = "callbacks.mine={_target_: my.Callback}"
    given = ["encoder.options={a: {b: 1}}", "encoder.rgb.options={a: 1}", mine, "callbacks.mine.seconds=2"]
    assert with_pluses(given) == [f"++{text}" for text in given]
    others = [
        "encoder.name=tiny",
        "callbacks.early_stopping.patience=3",
        "+callbacks.x=1",
        "~callbacks",
        "seed=1",
    ]
    assert with_pluses(others) == others


def test_nested_options_are_taken() -> None:
    given = with_pluses(["encoder.options={a: {b: c}}"])
    assert check_command_line(given, None, multirun=False) == []
    assert compose_config(given).encoder.options == {"a": {"b": "c"}}


def test_keys_of_other_projects() -> None:
    with pytest.raises(
        UserError, match=r"hydra.run.dir=x has no effect here: paths.run=<folder> names"
    ) as error:
        refuse_without_effect(["seed=1", "hydra.run.dir=x", "hydra.job.chdir=true"])
    assert "a run stays in the folder where it was started" in str(error.value)


ODD = [
    "2024",
    "2024_01_15",
    "1e5",
    "true",
    "[x] y",
    "a'b",
    'a"b',
    "a{b}",
    "a,b",
    "{z}",
    "a\nb",
    "a\\b",
    "a\\",
    "~x",
    "\x1bb",
    "it's",
]


@pytest.mark.parametrize("value", ODD)
def test_paths_and_names_are_taken_as_they_were_typed(value: str) -> None:
    for key in ("paths.outputs", "paths.run", "data.root", "encoder.rgb.weights", "+logger.wandb.name"):
        (text,) = with_quotes([f"{key}={value}"])
        assert parse(text).value() == value
    config = OmegaConf.create({"data": {"root": None, "workers": 0}})
    changed = with_values(config, [f"data.root={value}", "data.workers=2"])
    assert (changed.data.root, changed.data.workers) == (value.strip("'\""), 2)


def test_what_is_meant_otherwise_stays() -> None:
    given = ["paths.run=null", "paths.data=${oc.env:HOME}", "paths.run='a b'", "paths.run"]
    assert with_quotes(given) == given
    assert with_quotes(["data.manifest=a.csv,b.csv"], multirun=True) == ["data.manifest=a.csv,b.csv"]
    assert with_quotes(["data.manifest=2024"], multirun=True) == ['data.manifest="2024"']
