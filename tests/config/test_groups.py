"""The groups of the configuration and their choices: globs, the user's own, the nearest names."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrobust.config.groups import group_options, nearest, offered, with_globs
from mmrobust.errors import UserError


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "adagrad.yaml").write_text("_target_: torch.optim.Adagrad\n_partial_: true\n")
    return str(tmp_path)


def test_choices_of_the_user_are_among_them(mine: str) -> None:
    assert group_options(None)["optimizer"] == ["adam", "adamw", "sgd"]
    assert group_options(mine)["optimizer"] == ["adagrad", "adam", "adamw", "sgd"]
    assert "inherit" not in group_options(None)["encoder"]  # it is no choice of its own


def test_globs_become_lists(mine: str) -> None:
    given = ["seed=0,1", "optimizer=glob(ada*,exclude=*w)", "+encoder@encoder.m1=glob(tiny)", "seed=[glob"]
    assert with_globs(given, mine) == [
        "seed=0,1",
        "optimizer=adagrad,adam",
        "+encoder@encoder.m1=tiny",
        "seed=[glob",
    ]
    assert with_globs(["optimizer=glob([adamw,sgd])"], None) == ["optimizer=adamw,sgd"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimizer=glob(x*)", r"optimizer=glob\(x\*\) matches no choice; there are adam, adamw, sgd"),
        (
            "metod=glob(*)",
            r"metod=glob\(\*\): glob lists the choices of a group, and metod is none; did you mean method",
        ),
    ],
)
def test_globs_that_list_nothing(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        with_globs([text], None)


def test_the_nearest_name() -> None:
    known = ["method", "optimizer.lr", "data.batch_size"]
    assert nearest("metod", known) == "; did you mean method?"
    assert nearest("lr", known) == "; did you mean optimizer.lr?"
    assert nearest("zzz", known) == ""


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("missing.test.rate", "; missing=mcar has it"),
        ("noise.test.density", "; noise/pattern@noise.test=salt has it"),
        ("optimizer.momentum", "; optimizer=sgd has it"),
        ("method.kl_weight", "; method=dmrnet, method=udml have it"),
        ("method.nothing", ""),
        ("seeed", ""),
    ],
)
def test_what_would_bring_a_key(key: str, words: str) -> None:
    assert offered(key, group_options(None)) == words
