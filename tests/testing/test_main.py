"""`python -m mmrobust.testing`: what is named is built from its YAML and checked, a line for each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch import nn

from mmrobust.testing.__main__ import main
from tests.squares import CONF

SMALL = ["encoder.width=8", "allow=[tests]"]
DATA = ["data=synthetic", "data.num_train=64", "data.num_val=8", "data.num_test=8", "data.batch_size=8"]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def method_yaml(target: str) -> str:
    parts = ("encoder", "fusion", "optimizer", "schedule", "seed")
    return "\n".join([f"_target_: {target}", *(f"{part}: ${{{part}}}" for part in parts)])


def test_a_method_from_its_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    # options in the middle, as people write them
    assert main(["method=pdf", "--config-dir", CONF, *SMALL]) == 0
    out = capsys.readouterr().out
    assert "ok      method=pdf on classification of 3 modalities: stacked combinations equal single" in out
    assert "segmentation" not in out
    assert out.splitlines()[-1] == "12 checks hold, 0 do not"


def test_a_mistake_is_told_and_the_rest_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "method/mine.yaml", method_yaml("tests.testing.test_method.HasAnUnusedParameter"))
    assert main(["--config-dir", str(tmp_path), "method=mine", *DATA, *SMALL]) == 1
    out = capsys.readouterr().out
    failed = re.findall(r"FAILED  (.*)", out)
    assert len(failed) == 1
    assert "method=mine on synthetic: losses" in failed[0]
    assert "unused.weight got no gradient" in failed[0]
    assert out.count("ok      method=mine") == 5
    assert out.splitlines()[-1] == f"{out.count('ok      ')} checks hold, 1 do not"


def test_an_exception_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "fusion/mine.yaml", "_target_: tests.testing.test_main.Breaks\n_partial_: true")
    assert main(["--config-dir", str(tmp_path), "fusion=mine", *DATA, *SMALL]) == 1
    assert "fusion=mine on synthetic: ZeroDivisionError: division by zero" in capsys.readouterr().out


class Breaks(nn.Module):
    def __init__(self, widths: object) -> None:
        raise ZeroDivisionError("division by zero")


def test_a_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data=squares", "--config-dir", CONF, *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok      data=squares: its splits have names, sizes and ids of their own"
    assert not any("method" in line for line in lines)


LINEAR = ["encoder=tiny", "encoder.name=tests.testing.test_encoder.Linear", *SMALL]


def test_an_encoder_and_what_it_does_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(LINEAR) == 0
    out = capsys.readouterr().out
    assert "ok      encoder=tests.testing.test_encoder.Linear on vector\n" in out
    assert "ok      encoder=tiny on regression of 3 modalities: losses" in out
    assert (
        "refused encoder=tests.testing.test_encoder.Linear on image: Linear reads vectors, not images\n"
        in out
    )
    assert "refused encoder=tiny on segmentation of 2 modalities: " in out


def test_what_named_data_needs_must_not_be_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LINEAR, *DATA, "data.kinds=[vector,image]"]) == 1
    out = capsys.readouterr().out
    assert "ok      encoder=tests.testing.test_encoder.Linear on m1\n" in out
    assert (
        "FAILED  encoder=tests.testing.test_encoder.Linear on m2: Linear reads vectors, not images\n" in out
    )


def test_a_fusion_in_its_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fusion=trunk", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "ok      fusion=trunk on classification of 2 modalities" in out
    assert "segmentation" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "found nothing; expected what is to be checked: method=, fusion=, encoder= or data="),
        (["seed=1"], "found seed=1; expected what is to be checked"),
        (["method=dropuot"], "method=dropuot is not known; did you mean dropout"),
        (["method=dropout", "method.wieght=1"], "there is no key method.wieght"),
        (
            ["method=dropout", "+method.extra=1"],
            "the keys of mmrobust.methods.dropout.ModalityDropout do not fit",
        ),
        (["method=dropout", "--config-dir", "nowhere"], "--config-dir nowhere: no such folder"),
        (["data=handwritten", "paths.data=nowhere"], "no handwritten_6views.mat in data.root=nowhere"),
        (["method=dropout,late"], "lists several values"),
    ],
)
def test_wrong_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
