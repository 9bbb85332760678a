"""Keys of data that have no effect beside others: they would make another run of the same numbers. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmrobust.data.table.csv_file import Table, read_table, type_of
from mmrobust.errors import UserError


@dataclass(frozen=True)
class Rule:
    """When some keys have an effect.

    Args:
        data: the datasets, as `data=` names them.
        keys: below `data`.
        works: the values of `data` -> whether they have.
        otherwise: why they have not.
    """

    data: tuple[str, ...]
    keys: tuple[str, ...]
    works: Callable[[Mapping[str, Any]], bool]
    otherwise: str


SCENES = ("nyuv2", "sunrgbd")
RULES = (
    Rule(SCENES, ("scene_size",), lambda d: d.get("task") == "scene", "it is for data.task=scene"),
    Rule(
        SCENES,
        ("image_size", "scale", "rescale_depth", "class_weights", "classes"),
        lambda d: d.get("task") == "segmentation",
        "it is for data.task=segmentation",
    ),
    Rule(
        ("synthetic",),
        ("kinds", "clarity", "variants", "shared", "groups"),
        lambda d: d.get("task") != "segmentation",
        "rendered scenes have none",
    ),
    Rule(("cremad",), ("validation",), lambda d: d.get("split") == "ogm", "it is for data.split=ogm"),
    Rule(("ave", "casia_surf"), ("seed",), lambda d: False, "the splits are official"),
    Rule(
        (*SCENES, "cityscapes", "kinetics_sounds", "utd_mhad"),
        ("seed",),
        lambda d: bool(d.get("validation")),
        "with data.validation=0 nothing is drawn",
    ),
    Rule(
        ("cremad", "handwritten"),
        ("seed",),
        lambda d: bool(d.get("validation")) or d.get("split") in ("actor", "random"),
        "with data.validation=0 nothing is drawn",
    ),
    Rule(("handwritten",), ("corrupt",), lambda d: False, "all lies in one file"),
)


def idle_keys(name: str, data: Mapping[str, Any], given: Sequence[str]) -> list[str]:
    """What has no effect among the keys that the user set, in words.

    Args:
        name: the choice of `data=`.
        data: the values of `data`.
        given: full names of keys, of other nodes as well.
    """
    mine = {key.removeprefix("data.") for key in given if key.startswith("data.")}
    rules = list(RULES)
    if name == "manifest" and mine & {"n_fft", "hop", "validation", "test"}:
        try:
            rules += _of_table(data, read_table(data["manifest"]))
        except UserError:
            return []  # told where it is read
    return [
        f"data.{key}={data[key]} has no effect: {rule.otherwise}; leave it out"
        for rule in rules
        for key in rule.keys
        if name in rule.data and key in mine and key in data and not rule.works(data)
    ]


def _of_table(data: Mapping[str, Any], table: Table) -> list[Rule]:
    cells = (row.cells.get(column, "") for row in table.rows for column in data["columns"] or ())
    sounds = any(type_of(cell) == "sounds" for cell in cells)
    named = {row.cells.get("split") for row in table.rows}
    told = "the column split names rows of {}"
    return [
        Rule(("manifest",), ("n_fft", "hop"), lambda d: sounds, "it is for sounds, and no column has any"),
        Rule(("manifest",), ("validation",), lambda d: "val" not in named, told.format("val")),
        Rule(("manifest",), ("test",), lambda d: "test" not in named, told.format("test")),
    ]
