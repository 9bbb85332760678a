"""Run a training in child processes: wait for them, forward signals, and raise their errors here. Imports no torch."""

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

# File in a run's folder with the error of the first process that failed; the parent reads and removes it.
MISTAKE = ".mistake"
# Exit status of a rank that lost its connection to the others; another rank has the cause.
ALONE = 3


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals on which a run saves and stops: SIGTERM, SIGINT, and SIGHUP unless it is ignored (nohup)."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT, *(() if ignored else (signal.SIGHUP,)))


def leave_mistake(folder: Path, text: str) -> None:
    """Leave the text of a UserError for the parent process, which raises it. The first process to fail wins."""
    with contextlib.suppress(FileExistsError), (folder / MISTAKE).open("x", encoding="utf-8") as file:
        file.write(text)


def run_children(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Run a command that trains the run in `folder`, and wait for its end.

    Raises:
        UserError: a process left a mistake, whose text this is, or the command failed.
        Stopped: a signal ended the command.
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
    """Run the command in a new process group and return its exit status.

    The group gets our stop signals as SIGTERM. It inherits our locks, so that they hold even if it outlives us.
    """
    received: list[int] = []
    group = subprocess.Popen(command, start_new_session=True, env=environment, pass_fds=tuple(HELD))

    def forward(number: int, frame: FrameType | None) -> None:
        # SIGHUP is sent more than once.
        if number == signal.SIGHUP and received:
            return
        received.append(number)
        group.send_signal(signal.SIGTERM)

    # Python sets signal handlers in the main thread only.
    main_thread = threading.current_thread() is threading.main_thread()
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
