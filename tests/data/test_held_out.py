"""What is held out of train: a share of every class, or a message that says why not."""

import pytest

from mmrobust.data.held_out import with_validation
from mmrobust.errors import UserError

TRAIN = {f"{label}{i}": (label, i) for label in range(2) for i in range(10)}
TARGETS = [label for label, _ in TRAIN.values()]


def test_a_share_of_every_class() -> None:
    parts = with_validation(TRAIN, {"x": (0, 0)}, TARGETS, 0.2, 0, "clips")
    assert {name: len(part) for name, part in parts.items()} == {"train": 16, "val": 4, "test": 1}
    assert sorted(label for label, _ in parts["val"].values()) == [0, 0, 1, 1]
    assert parts["train"].keys() | parts["val"].keys() == TRAIN.keys()
    assert parts == with_validation(TRAIN, {"x": (0, 0)}, TARGETS, 0.2, 0, "clips")
    assert parts["val"] != with_validation(TRAIN, {}, TARGETS, 0.2, 1, "clips")["val"]


def test_none_for_a_share_of_0() -> None:
    assert with_validation(TRAIN, {}, TARGETS, 0, 0, "clips") == {"train": TRAIN, "test": {}}


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (1, "data.validation=1 is not a share of train; use 0 <= share < 1"),
        (-0.1, "data.validation=-0.1 is not a share of train"),
        (0.01, "data.validation=0.01 of 20 clips leaves 20 for training and 0 for validation; change it"),
        (0.99, "data.validation=0.99 of 20 clips leaves 0 for training and 20 for validation; change it"),
    ],
)
def test_shares_that_cannot_be(share: float, told: str) -> None:
    with pytest.raises(UserError, match=told.replace(".", r"\.")):
        with_validation(TRAIN, {}, TARGETS, share, 0, "clips")
