"""What the terminal shows of a run."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from mmrobust.config.compose import compose_config
from mmrobust.training import terminal
from mmrobust.training.terminal import as_job, head, job, say, say_of_job, shows_bar, step
from tests.runs import tiny


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


@pytest.mark.slow
def test_ctrl_c_begins_a_line_of_its_own(tmp_path: Path) -> None:
    """On a real terminal, with a bar; the head of the run came before all that takes time."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))  # a bar needs some width
    slow = [
        "allow=[tests]",
        "callbacks.slow={_target_: tests.faults.Slow, seconds: 0.3}",
        "data.num_train=640",
    ]
    command = [
        sys.executable,
        "-m",
        "mmrobust.run",
        *tiny(*slow),
        "method=dropout",
        f"paths.run={tmp_path}/run",
    ]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    printed, asked = "", False
    with suppress(OSError):  # the terminal is closed
        while text := os.read(ours, 65536).decode(errors="replace"):
            printed += text
            if not asked and "10/40" in printed:
                process.send_signal(signal.SIGINT)
                asked = True
    assert process.wait(60) == 130
    lines = [line.rpartition("\r")[2] for line in printed.split("\r\n")]
    assert lines[0].startswith(f"dropout on synthetic, seed 0: {tmp_path}/run")
    assert any(line.startswith("stopping after this batch") for line in lines)
    assert any(line.startswith("saved; go on with: python -m mmrobust.run resume=") for line in lines)


def test_jobs_of_a_sweep_say_less(capsys: pytest.CaptureFixture[str]) -> None:
    config = compose_config(["method=late"])
    with as_job(7, parallel=True):
        assert job() == 7
        assert not shows_bar()
        step("reading the data ...")
        head(config, Path("outputs/x"))
        say_of_job("epoch 1/2")
    assert job() is None
    step("reading the data ...")
    assert capsys.readouterr().out == "[7] epoch 1/2\nreading the data ...\n"


def test_the_head_of_a_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.sys, "modules", {k: v for k, v in sys.modules.items() if k != "torch"})
    head(compose_config(["method=late", "data=synthetic", "seed=4"]), Path("outputs/late_synthetic/abc"))
    assert capsys.readouterr().out.splitlines() == [
        "late on synthetic, seed 4: outputs/late_synthetic/abc",
        "loading torch ...",
    ]
