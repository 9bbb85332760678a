"""Keys of data without effect are mistakes: they would make another run of the same numbers."""

import pytest

from mmrobust.config.check import check_command_line
from mmrobust.config.compose import compose_config
from mmrobust.data.effects import RULES
from mmrobust.errors import UserError
from tests.data.manifest_tree import make_manifest, make_masks, read_rows, write_table


def told(*overrides: str) -> str:
    try:
        check_command_line(overrides, None, multirun=False)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{'+'.join(rule.data)}: {'+'.join(rule.keys)}")
def test_rules_name_keys_that_there_are(rule):
    for name in rule.data:
        assert set(compose_config([f"data={name}"]).data) & set(rule.keys)


@pytest.mark.parametrize(
    ("data", "overrides", "idle"),
    [
        ("nyuv2", ["task=scene", "class_weights=none"], ["class_weights"]),
        ("nyuv2", ["task=scene", "scale=[1,2]", "image_size=[32,32]", "scene_size=[32,32]"], ["image_size", "scale"]),
        ("nyuv2", ["scene_size=[32,32]", "seed=1"], ["scene_size"]),
        ("cityscapes", ["image_size=[32,64]", "validation=0", "seed=1"], ["seed"]),
        ("synthetic", ["task=segmentation", "size=8", "kinds=[image]"], ["kinds"]),
        ("ave", ["seed=1"], ["seed"]),
        ("cremad", ["split=actor", "validation=0.2", "seed=1"], ["validation"]),
        ("handwritten", ["corrupt=skip"], ["corrupt"]),
    ],
)  # fmt: skip
def test_keys_that_another_value_makes_idle(data, overrides, idle):
    text = told(f"data={data}", *(f"data.{text}" for text in overrides))
    assert len(text.splitlines()) == len(idle)
    for key in idle:
        assert f"data.{key}=" in text
        assert " has no effect: " in text


def test_keys_of_sounds_and_shares_of_rows(tmp_path):
    labels = make_manifest(tmp_path / "labels")
    masks = make_masks(tmp_path / "masks")
    given = ["data=manifest", f"data.manifest={labels}"]
    assert not told(*given, "data.n_fft=256", "data.validation=0.2", "data.test=0.3")
    assert "no column has any" in told("data=manifest", f"data.manifest={masks}", "data.n_fft=256")
    rows = read_rows(labels)
    for row, split in zip(rows, ["val", "test", *["train"] * 8], strict=True):
        row["split"] = split
    write_table(labels, rows)
    text = told(*given, "data.validation=0.2", "data.test=0.3", "data.hop=64")
    assert "data.validation=0.2 has no effect: the column split names rows of val; leave it out" in text
    assert "data.test=0.3 has no effect: the column split names rows of test; leave it out" in text
    assert len(text.splitlines()) == 2
