"""What is to be made of a download: items that do not depend on each other."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from mmrobust.errors import Problems, UserError
from mmrobust.files import expanded

if TYPE_CHECKING:
    from mmrobust.prepare.facts import Fact

DATASETS = (
    "cremad",
    "ave",
    "kinetics_sounds",
    "nyuv2",
    "sunrgbd",
    "cityscapes",
    "casia_surf",
    "avmnist",
)
MARKER = "GENERATED.txt"  # in a download that `prepare synthetic` made


@dataclass(frozen=True)
class Item:
    """A sample, or a list of samples.

    Args:
        name: what it is called in messages and in the record.
        sources: files of the download that it is made of.
        outputs: files and folders that it becomes, relative to the prepared folder.
        make: writes the outputs below a folder. Raises a UserError if a source cannot be used: the item is skipped.
        split: train, val, test, or none.
        label: its class, or none.
    """

    name: str
    sources: Sequence[Path]
    outputs: Sequence[str]
    make: Callable[[Path], None]
    split: str = ""
    label: str = ""


@dataclass(frozen=True)
class Plan:
    """What is to be made, in the order of the record; and what the user should know of the whole."""

    items: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Download:
    """Args:
    raw: its folder.
    near: where lists and the like may lie that do not come with it: the folder `lists`, if it is given; `raw`; and a
        folder beside it called like it with `_meta` after its name.
    options: keys of conf/data/<dataset>.yaml, of which OPTIONS may be given on the command line.
    """

    raw: Path
    near: tuple[Path, ...]
    options: Mapping[str, Any]

    def find(self, name: str) -> Path | None:
        """The file of that name in the first of the folders that has it."""
        return next((folder / name for folder in self.near if (folder / name).is_file()), None)


class Preparation(Protocol):
    """What a module of `prepare.datasets` has."""

    TITLE: str
    MARKS: Sequence[str]  # globs below a download's folder, one of which finds something
    EXPECTED: str  # what the folder should hold, and where it comes from
    OPTIONS: Sequence[str]  # keys of conf/data that change what is made

    def plan(self, download: Download) -> Plan:
        """What is to be made. Raises: UserError: what nothing can be made without is not there."""

    def known(self, root: Path, options: Mapping[str, Any]) -> list[Fact]:
        """What a prepared folder holds beside what is officially known."""


def preparation(dataset: str) -> Preparation:
    """The module of a dataset."""
    found: Any = importlib.import_module(f"mmrobust.prepare.datasets.{dataset}")
    return found


def defaults(dataset: str) -> dict[str, Any]:
    """What stands in conf/data/<dataset>.yaml."""
    from mmrobust.config.compose import conf_folder

    keys: dict[str, Any] = yaml.safe_load((conf_folder() / f"data/{dataset}.yaml").read_text())
    return keys


def download_at(dataset: str, raw: Path, lists: Path | None, options: Mapping[str, Any]) -> Download:
    """The download of that dataset in a folder.

    Raises:
        UserError: there is none, or that of another dataset.
    """
    raw = expanded(raw)
    module = preparation(dataset)
    if not raw.is_dir():
        raise UserError(f"raw={raw} is no folder; expected {module.EXPECTED}")
    if not any(has(raw, mark) for mark in module.MARKS):
        others = [d for d in DATASETS if d != dataset and any(has(raw, m) for m in preparation(d).MARKS)]
        looks = f"; it looks like {' or '.join(others)}: take `prepare {others[0]}`" if others else ""
        raise UserError(
            f"raw={raw} holds no {module.TITLE} (none of {', '.join(module.MARKS)}){looks}. Expected {module.EXPECTED}"
        )
    near = [raw, raw.with_name(f"{raw.name}_meta")] if raw.name else [raw]
    if lists is not None:
        near.insert(0, expanded(lists))
        if not near[0].is_dir():
            raise UserError(f"lists={lists} is no folder; give that of the lists, or leave it out")
    return Download(raw, tuple(near), options)


def has(folder: Path, mark: str) -> bool:
    """Whether a glob finds something."""
    return next(folder.glob(mark), None) is not None


def no_problems(problems: Problems, what: str) -> None:
    """Raises: UserError: the problems, if there are any."""
    if problems:
        raise UserError(f"{what} cannot be prepared:\n{problems.listed()}")
