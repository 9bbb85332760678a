"""The groups of the configuration and their choices: globs, the user's own, the nearest names."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrobust.config.check import check_command_line
from mmrobust.config.compose import compose_config, conf_folder
from mmrobust.config.groups import PACKAGES, group_options, nearest, offered, with_globs
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


# Where the keys of the user's files go


@pytest.mark.parametrize(
    ("file", "package", "choice"),
    [
        ("metric/mine.yaml", "metrics", "metric=mine"),
        ("metric/mine.yaml", "metrics", "metric=[kappa,mine]"),
        ("experiment/mine.yaml", "_global_", "experiment=mine"),
        ("debug/mine.yaml", "_global_", "debug=mine"),
        ("ablation/dmrnet/mine.yaml", "_global_", "+ablation/dmrnet=mine"),
    ],
)
def test_a_file_says_where_its_keys_go(file: str, package: str, choice: str, tmp_path: Path) -> None:
    """Without that line nothing would read them; nothing else is looked at before."""
    path, indent = tmp_path / file, "" if package == "metrics" else "metrics:\n  "
    path.parent.mkdir(parents=True)
    text = f"{indent}share: {{_target_: torchmetrics.CohenKappa, direction: max}}\n"
    for wrong in (
        "",
        "# Mine.\n",
        f"# Mine.\n# @package {package}\n",
        f"# @package {file.partition('/')[0]}\n",
    ):
        path.write_text(f"{wrong}{text}")
        with pytest.raises(UserError, match=f"^{path} begins .* first line must be # @package {package}, "):
            check_command_line([choice, "metrics.share.direction=min"], str(tmp_path), multirun=False)
    path.write_text(f"# @package {package}\n# Mine.\n{text}")
    overrides = [choice, *(["metrics.share.direction=min"] if package == "metrics" else [])]
    check_command_line(overrides, str(tmp_path), multirun=False)
    assert "direction" in compose_config(overrides, str(tmp_path)).metrics.share


def test_ours_say_it() -> None:
    for path in conf_folder().rglob("*.yaml"):
        group = path.relative_to(conf_folder()).parts[0]
        if group in PACKAGES:
            assert path.read_text().startswith(f"# @package {PACKAGES[group]}\n"), path
    assert PACKAGES.keys().isdisjoint(compose_config([]))
