"""A process group that trains for this process: wait for its end, pass signals on to it, hear what it has to say. Imports
no torch."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from mmrobust.config.trust import resume_command
from mmrobust.errors import Stopped, UserError
from mmrobust.training.locks import HELD

# In a run's folder, until it is read: what the first process to fail has to say.
MISTAKE = ".mistake"
# Status of a process that has lost the others. Why, the first that failed knows.
ALONE = 3


def stop_signals() -> tuple[signal.Signals, ...]:
    """What asks a run to save and stop: SIGTERM, Ctrl-C, and a terminal that goes away, unless that is ignored (nohup)."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT, *(() if ignored else (signal.SIGHUP,)))


def leave_mistake(folder: Path, text: str) -> None:
    """A user's mistake that a process found, for the one that waits for all; the first wins."""
    with contextlib.suppress(FileExistsError), (folder / MISTAKE).open("x", encoding="utf-8") as file:
        file.write(text)


def run_children(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Run a command that trains the run in `folder`, to its end.

    Raises:
        UserError: what a process left as its mistake; the command failed.
        Stopped: a signal ended it.
    """
    left = folder / MISTAKE
    left.unlink(missing_ok=True)
    if status := _wait(command, folder, environment):
        if left.is_file():
            text = left.read_text(encoding="utf-8")
            left.unlink()
            raise UserError(text)
        if status - 128 in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            raise Stopped(status - 128, _go_on(folder))
        raise UserError(f"training in {folder} stopped with status {status}; the first error above says why")


def _wait(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> int:
    """Run a process group of its own to its end; it gets our stop signals as SIGTERM, and our locks, should it outlive
    this process."""
    received: list[int] = []
    group = subprocess.Popen(command, start_new_session=True, env=environment, pass_fds=tuple(HELD))

    def forward(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and received:  # which comes more than once
            return
        received.append(number)
        group.send_signal(signal.SIGTERM)

    main_thread = threading.current_thread() is threading.main_thread()  # only there handlers can be set
    before = {n: signal.signal(n, forward) for n in stop_signals()} if main_thread else {}
    try:
        status = group.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if group.poll() is None:
            os.killpg(group.pid, signal.SIGKILL)
    if received:
        raise Stopped(received[0], _go_on(folder))
    return status


def _go_on(folder: Path) -> str:
    saved = (folder / "checkpoints" / "last.ckpt").is_file()
    return f"{'saved; ' * saved}go on with: {resume_command(folder)}"
