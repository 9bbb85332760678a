"""What a command says when something fails, and what its output may do to it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmrobust.errors import UserError, as_user_error, guarded, masked, printable


def raised(code: str) -> BaseException:
    """What a line of code raises, as if it stood in a file of ours."""
    try:
        exec(compile(code, "ours.py", "exec"), {"np": np, "__name__": "mmrobust.ours"})
    except BaseException as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.ENOENT, "was it moved or removed"),
        (errno.EEXIST, "is it a link to what is not there"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
        (errno.EMFILE, "ulimit -n 4096"),
        (errno.ELOOP, "remove it"),
    ],
)
def test_what_a_disk_does_is_told_with_the_path(number: int, remedy: str) -> None:
    told = str(as_user_error(OSError(number, os.strerror(number), "runs/x")))
    assert told.startswith("runs/x cannot be used: ")
    assert remedy in told


def test_errors_of_libraries_are_one_line() -> None:
    error = raised("np.stack([])")  # raised by NumPy's own Python
    assert (
        str(as_user_error(error))
        == "ValueError: need at least one array to stack (at ours.py:1; --traceback shows all)"
    )


@pytest.mark.parametrize(
    "code", ["{}['x']", "raise RuntimeError('a bug')", "None.x", "import json; json.loads('{')"]
)
def test_errors_of_ours_are_not(code: str) -> None:
    assert as_user_error(raised(code)) is None


def test_memory_and_lost_workers() -> None:
    assert "not enough memory" in str(as_user_error(MemoryError("Unable to allocate 1 TiB")))
    lost = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    assert "a data worker was killed, as a system does that has no memory left" in str(as_user_error(lost))
    assert "ulimit -n 4096" in str(as_user_error(RuntimeError("received 0 items of ancdata")))


def test_no_password_and_no_escapes() -> None:
    assert (
        masked("at mysql+x://me:pa@ss@host/db?token=t&x=1, or a@b.c")
        == "at mysql+x://***@host/db?token=***&x=1, or a@b.c"
    )
    assert str(UserError("postgres://me:secret@host")) == "postgres://***@host"
    assert printable("a\x1b]0;evil\x07\u202eb\nc\té漢") == "a\ufffd]0;evil\ufffd\ufffdb\nc\té漢"


PRINTS = """
import sys
from mmrobust.errors import guarded
def command():
    for _ in range(20000):
        print("a line that nobody reads", flush=True)
        print("another", file=sys.stderr, flush=True)
    open({path!r}, "w").write("done")
    return 0
sys.exit(guarded(command))
"""


def test_a_pipe_that_closes_ends_nothing(tmp_path: Path) -> None:
    done = tmp_path / "done"
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS.format(path=str(done))], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    process.stderr.close()
    assert process.wait(60) == 0
    assert done.read_text() == "done"


def test_streams_are_what_they_were() -> None:
    before = sys.stdout, sys.stderr
    assert guarded(lambda: int(sys.stdout is before[0])) == 0
    assert (sys.stdout, sys.stderr) == before
