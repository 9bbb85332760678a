"""What the terminal shows of a run."""

from __future__ import annotations

import sys

import pytest
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from mmrobust.config.compose import compose_config
from mmrobust.training import terminal
from mmrobust.training.terminal import as_job, head, job, say, say_of_job, shows_bar, step


@pytest.mark.parametrize("error", [False, True])
def test_a_line_is_not_glued_to_a_bar(error: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """The bar's line is wiped before, and drawn again below."""
    bar = Tqdm(total=10, desc="Epoch 0", file=sys.stdout, mininterval=0)
    bar.update(3)
    say("saved", error=error)
    printed = capsys.readouterr()
    bar.close()
    if error:
        assert printed.err == "saved\n"
        assert printed.out.rstrip("\r").endswith("3/10") or "\r" in printed.out
    else:
        before, after = printed.out.split("saved\n")
        assert before.endswith("\r")
        assert "3/10" in after


def test_jobs_of_a_sweep_say_less(capsys: pytest.CaptureFixture[str]) -> None:
    config = compose_config(["method=late"])
    with as_job(7, parallel=True):
        assert job() == 7
        assert not shows_bar()
        step("reading the data ...")
        head(config, "outputs/x")  # type: ignore[arg-type]
        say_of_job("epoch 1/2")
    assert job() is None
    step("reading the data ...")
    assert capsys.readouterr().out == "[7] epoch 1/2\nreading the data ...\n"


def test_the_head_of_a_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.sys, "modules", {k: v for k, v in sys.modules.items() if k != "torch"})
    head(compose_config(["method=late", "seed=4"]), "outputs/late_synthetic/abc")  # type: ignore[arg-type]
    assert capsys.readouterr().out.splitlines() == [
        "late on synthetic, seed 4: outputs/late_synthetic/abc",
        "loading torch ...",
    ]
