"""Every number of conf/ has a range, and what lies outside is said before anything is computed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmrobust.config.compose import conf_folder
from mmrobust.config.ranges import LARGEST, RANGES, Range, may_be_null, range_of

# Groups whose files are composed below another key.
PLACES = {
    "noise/pattern": "noise.test",
    "missing/pattern": "missing.test",
    "encoder/decoder": "encoder.decoder",
    "data/modality": "data.modalities.rgb",
    "method/preset": "",
}
# Files whose keys are those of others, or of W&B.
OTHERS = ("experiment", "ablation", "sweep/space", "wandb_sweep.yaml")
# Checked by what they are about.
UNRANGED = ("trainer.devices", "missing.", "sweep.space.")


def leaves(node: Any, key: str, kinds: tuple[type, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, child in node.items():
            if name not in ("defaults", "hydra"):
                yield from leaves(child, f"{key}.{name}" if key else str(name), kinds)
    elif isinstance(node, list):
        for child in node:
            yield from leaves(child, key, kinds)
    elif type(node) in kinds:
        yield key, node


def of_file(path: Path, kinds: tuple[type, ...] = (int, float)) -> Iterator[tuple[str, Any]]:
    name = path.relative_to(conf_folder())
    text = path.read_text(encoding="utf-8")
    group = name.parent.as_posix().strip(".")
    place = PLACES.get(group, group)
    for line in text.splitlines():
        if line.startswith("# @package"):
            place = line.split()[-1].replace("_global_", "")
    yield from leaves(yaml.safe_load(text) or {}, place, kinds)


FILES = [
    path
    for path in sorted(conf_folder().rglob("*.yaml"))
    if not path.relative_to(conf_folder()).as_posix().startswith(OTHERS)
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(conf_folder()).as_posix())
def test_every_number_has_a_range(path: Path) -> None:
    for key, value in of_file(path):
        if key.startswith(UNRANGED):
            continue
        found = range_of(key)
        assert found is not None, f"{key}={value} of {path} has no range; name one in RANGES"
        assert found.outside(value) is None, f"{key}={value} of {path} {found.outside(value)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(conf_folder()).as_posix())
def test_only_numbers_have_ranges(path: Path) -> None:
    for key, value in of_file(path, (str, bool)):
        if key.startswith(UNRANGED):
            continue
        assert range_of(key) is None or "${" in str(value) or value == "???" or key == "data.classes", (
            f"{key}={value} of {path}"
        )


def test_every_range_excludes_something() -> None:
    for name, found in RANGES.items():
        assert found.outside(-LARGEST * 4.0), name


def test_the_ends() -> None:
    closed, open_ = Range(least=0, most=1), Range(above=0, below=1)
    assert [closed.outside(x) for x in (0, 1)] == [None, None]
    assert [open_.outside(x) for x in (0, 1)] == ["is not above 0", "is not below 1"]
    assert [closed.outside(x) for x in (-1, 2)] == ["is below 0", "is above 1"]


def test_null() -> None:
    assert may_be_null("data.audio_snr")
    assert may_be_null("trainer.limit_val_batches")
    assert not may_be_null("method.temperature")
