"""What is wrong with a dataset is said all at once, and how to go on without damaged samples only where that would do."""

import pytest

from mmrobust.data.audit import Audit
from mmrobust.errors import UserError


def audited(skip: bool, problems: list[str], damaged: list[str]) -> str:
    audit = Audit("data.root=/x", skip, "clips")
    audit.problems.extend(problems)
    audit.damaged.extend(damaged)
    with pytest.raises(UserError) as caught:
        audit.check()
    return str(caught.value)


def test_all_at_once() -> None:
    assert audited(False, ["no list"], ["no a.wav"]) == "data.root=/x cannot be used:\n- no list\n- no a.wav"
    assert audited(True, ["no list"], ["no a.wav"]).endswith("- no list\n- no a.wav")


def test_damaged_samples_may_be_left_out() -> None:
    told = audited(False, [], ["no a.wav", "no b.jpg"])
    assert told.endswith("- no a.wav\n- no b.jpg; or leave these clips out: data.corrupt=skip")
    audit = Audit("data.root=/x", True, "clips")
    audit.damaged.append("no a.wav")
    audit.check()
